//! `--reach` against real servers: the same backup, archive, target and damage for both, and the same answer expected.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgwal::text::Zone;
use pgwal::types::TimestampTz;
use pgwal_testkit::server::{Postgres, Recovery, Server, give, wait_until};
use serde_json::Value;

/// So many situations are asked for.
const SITUATIONS: usize = 60;
/// Servers that recover at the same time.
const WORKERS: usize = 4;

/// Something that happened in the cluster, in its order.
#[derive(Clone, Debug)]
struct Event {
    xid: String,
    /// When the transaction ended, in UTC.
    time: String,
    /// Where the WAL ended right before it, and behind it.
    before: String,
    after: String,
    /// Segment with the end, on the timeline that it was written on.
    segment: String,
}

/// Backups, WAL and what is in it.
struct History {
    postgres: Postgres,
    /// Kept for its directory.
    _servers: Vec<Server>,
    archive: PathBuf,
    /// By name, with the LSN where each starts.
    backups: BTreeMap<&'static str, (PathBuf, String)>,
    /// Those that are no proper backups.
    others: BTreeMap<&'static str, (PathBuf, String)>,
    /// By what they are called here.
    events: BTreeMap<&'static str, Event>,
}

/// `psql`'s answers to several statements, each a transaction of its own.
fn psql(server: &Server, statements: &[&str]) -> Vec<String> {
    let mut args = vec!["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres"];
    for statement in statements {
        args.extend(["-c", statement]);
    }
    let output = server.client("psql", args).unwrap();
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

const NOW: &str = "SELECT pg_current_wal_insert_lsn()";

/// A transaction that ends, and where.
fn event(server: &Server, timeline: u32, work: &[&str], xid: &str) -> Event {
    let time = format!("SELECT to_char(pg_xact_commit_timestamp('{xid}') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')");
    let mut statements = vec![NOW];
    statements.extend(work);
    statements.extend([NOW, "SELECT substr(pg_walfile_name(pg_current_wal_insert_lsn()), 9)"]);
    if !xid.is_empty() {
        statements.push(&time);
    }
    let mut lines = psql(server, &statements).into_iter();
    let before = lines.next().unwrap();
    let mut lines: Vec<String> = lines.collect();
    let time = if xid.is_empty() { String::new() } else { lines.pop().unwrap() };
    let segment = format!("{timeline:08X}{}", lines.pop().unwrap());
    let after = lines.pop().unwrap();
    let xid = if xid.is_empty() { lines.pop().unwrap_or_default() } else { xid.to_owned() };
    Event { xid, time, before, after, segment }
}

/// The function that gives a transaction its id, and tells it.
fn own_xid(server: &Server) -> &'static str {
    if server.major() < 13 { "txid_current()" } else { "pg_current_xact_id()" }
}

/// A committed row.
fn commit(server: &Server, timeline: u32) -> Event {
    let insert = format!("INSERT INTO t SELECT max(i) + 1, repeat('x', 500) FROM t RETURNING {}", own_xid(server));
    let mut event = event(server, timeline, &[&insert], "");
    let time = format!("SELECT to_char(pg_xact_commit_timestamp('{}') AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')", event.xid);
    event.time = psql(server, &[&time]).remove(0);
    event
}

fn archived(server: &Server, archive: &Path) {
    let name = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the segment in the archive", || archive.join(&name).exists());
}

/// WAL of some segments.
fn fill(server: &Server) {
    server.sql("INSERT INTO filler SELECT repeat('y', 700) FROM generate_series(1, 2500)").unwrap();
    if server.major() < 11 {
        // Its segments have 16 MB.
        server.sql("SELECT pg_switch_wal()").unwrap();
    }
}

fn label_start(backup: &Path) -> String {
    let label = fs::read_to_string(backup.join("backup_label")).unwrap();
    label.strip_prefix("START WAL LOCATION: ").unwrap().split(' ').next().unwrap().to_owned()
}

fn history(postgres: Postgres) -> History {
    let keep = if postgres.major < 13 { "wal_keep_segments = 64" } else { "wal_keep_size = 64MB" };
    let settings = format!(
        "archive_mode = on\nautovacuum = off\nmax_wal_size = 1GB\nshared_buffers = 4MB\ntrack_commit_timestamp = on\n\
         max_prepared_transactions = 2\n{keep}\nfull_page_writes = on\nmax_connections = 20"
    );
    let size: &[&str] = if postgres.major < 11 { &[] } else { &["--wal-segsize=1"] };
    let primary = postgres.start(size, &format!("archive_command = 'false'\n{settings}")).unwrap();
    let archive = primary.dir().join("archive");
    fs::create_dir(&archive).unwrap();
    fs::set_permissions(&archive, fs::Permissions::from_mode(0o777)).unwrap();
    let copy = format!("cp %p {0}/.%f && mv {0}/.%f {0}/%f", archive.display());
    primary.sql(&format!("ALTER SYSTEM SET archive_command = '{copy}'")).unwrap();
    primary.reload().unwrap();
    primary.sql("CREATE TABLE t(i int, filler text)").unwrap();
    primary.sql("CREATE TABLE filler(txt text)").unwrap();
    primary.sql("INSERT INTO t VALUES (1, '')").unwrap();
    let mut events = BTreeMap::new();
    let (mut backups, mut others) = (BTreeMap::new(), BTreeMap::new());
    let take = |server: &Server, name: &str| {
        let to = primary.dir().join(name);
        server.client("pg_basebackup", ["-X", "none", "-c", "fast", "-D", to.to_str().unwrap()]).unwrap();
        let start = label_start(&to);
        (to, start)
    };
    events.insert("old", commit(&primary, 1));
    archived(&primary, &archive);
    backups.insert("first", take(&primary, "first"));
    fill(&primary);
    events.insert("a", commit(&primary, 1));
    events.insert("point one", event(&primary, 1, &["SELECT pg_create_restore_point('one')"], ""));
    events.insert("b", commit(&primary, 1));
    archived(&primary, &archive);
    fill(&primary);
    // One transaction that is rolled back, and one that is prepared first.
    let xid = own_xid(&primary);
    let rolled_back = psql(&primary, &["BEGIN", &format!("SELECT {xid}"), "INSERT INTO filler VALUES ('z')", "ROLLBACK"]);
    let xid = rolled_back[0].clone();
    events.insert("rolled back", Event { xid, ..event(&primary, 1, &[], "") });
    let xid = own_xid(&primary);
    let prepared = psql(&primary, &["BEGIN", &format!("SELECT {xid}"), "INSERT INTO filler VALUES ('p')", "PREPARE TRANSACTION 'p'"]);
    events.insert("c", commit(&primary, 1));
    events.insert("prepared", event(&primary, 1, &["COMMIT PREPARED 'p'"], &prepared[0]));
    archived(&primary, &archive);
    let standby = primary.standby().unwrap();
    let replayed = |lsn: &str| {
        wait_until("the standby", || standby.sql(&format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")).is_ok_and(|is| is == "t"));
    };
    fill(&primary);
    events.insert("d", commit(&primary, 1));
    primary.sql("CHECKPOINT").unwrap();
    events.insert("e", commit(&primary, 1));
    replayed(&events["e"].after);
    backups.insert("standby", take(&standby, "standby"));
    events.insert("f", commit(&primary, 1));
    events.insert("point two", event(&primary, 1, &["SELECT pg_create_restore_point('two')"], ""));
    fill(&primary);
    archived(&primary, &archive);
    // A backup by hand, with transactions while it is taken.
    let (begin, end) = match postgres.major {
        0..=14 => ("pg_start_backup('by hand', true, false)", "pg_stop_backup(false)"),
        _ => ("pg_backup_start('by hand', true)", "pg_backup_stop(false)"),
    };
    let to = primary.dir().join("second");
    let during = |name: &'static str| {
        format!(
            "INSERT INTO t SELECT max(i) + 1, '{name}' FROM t RETURNING {} \\g {}\n",
            own_xid(&primary),
            primary.dir().join(format!("xid-{name}")).display()
        )
    };
    let script = format!(
        "SELECT {begin};\n{0}\\! cp -a {1} {2} && rm -rf {2}/pg_wal/0* {2}/pg_wal/archive_status/* {2}/postmaster.pid {2}/postmaster.opts\n{3}\
         SELECT labelfile FROM {end} \\g {2}/backup_label\n",
        during("during"),
        primary.data().display(),
        to.display(),
        during("late"),
    );
    let file = primary.dir().join("script");
    fs::write(&file, script).unwrap();
    let before = primary.sql(NOW).unwrap();
    primary.client("psql", ["-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-f", file.to_str().unwrap()]).unwrap();
    for name in ["during", "late"] {
        let xid = fs::read_to_string(primary.dir().join(format!("xid-{name}"))).unwrap().trim().to_owned();
        let ended = event(&primary, 1, &[], &xid);
        events.insert(name, Event { before: before.clone(), ..ended });
    }
    backups.insert("second", (to.clone(), label_start(&to)));
    events.insert("g", commit(&primary, 1));
    // The name of the first restore point again.
    events.insert("point one again", event(&primary, 1, &["SELECT pg_create_restore_point('one')"], ""));
    fill(&primary);
    events.insert("h", commit(&primary, 1));
    replayed(&events["h"].after);
    // The standby becomes timeline 2, and the old primary goes on as if it had not.
    standby.control("promote").unwrap();
    events.insert("two a", commit(&standby, 2));
    events.insert("lost", commit(&primary, 1));
    fill(&primary);
    events.insert("lost late", commit(&primary, 1));
    archived(&primary, &archive);
    fill(&standby);
    events.insert("point three", event(&standby, 2, &["SELECT pg_create_restore_point('three')"], ""));
    backups.insert("third", take(&standby, "third"));
    events.insert("two b", commit(&standby, 2));
    fill(&standby);
    events.insert("two c", commit(&standby, 2));
    archived(&standby, &archive);
    wait_until("the history", || archive.join("00000002.history").exists());
    primary.control("stop").unwrap();
    standby.control("stop").unwrap();
    // The files of a running server without a label, and a label that does not name its method.
    for (name, of) in [("crashed", "second"), ("no method", "first")] {
        let (from, start) = backups[of].clone();
        let to = from.with_file_name(name.replace(' ', "_"));
        assert!(std::process::Command::new("cp").arg("-a").args([&from, &to]).status().unwrap().success());
        let label = to.join("backup_label");
        let text = fs::read_to_string(&label).unwrap();
        fs::remove_file(&label).unwrap();
        if name == "no method" {
            fs::write(&label, text.replace("BACKUP METHOD: streamed\n", "")).unwrap();
        }
        others.insert(name, (to, start));
    }
    // The backup that the standby was made of is gone.
    for file in fs::read_dir(&archive).unwrap().flatten().filter(|file| file.file_name().to_string_lossy().ends_with(".backup")) {
        let text = fs::read_to_string(file.path()).unwrap();
        if !backups.values().any(|(_, start)| text.contains(&format!("START WAL LOCATION: {start} "))) {
            fs::remove_file(file.path()).unwrap();
        }
    }
    History { postgres, _servers: vec![primary, standby], archive, backups, others, events }
}

/// What is done to the archive.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Damage {
    None,
    Missing,
    Flipped,
    Truncated,
    ZeroedTail,
    NoHistory,
    /// The history of timeline 2 without a segment of it.
    HistoryAlone,
}

/// One question.
#[derive(Clone, Debug)]
struct Situation {
    /// `None`: to be chosen.
    backup: Option<&'static str>,
    /// How the target is called here, the option, and the server's setting.
    target: (String, String, String),
    inclusive: bool,
    damage: Damage,
    /// Event in whose segment the damage is.
    place: &'static str,
    timeline: Option<u32>,
}

impl History {
    fn targets(&self) -> Vec<(String, String, String)> {
        let mut targets = Vec::new();
        let mut add = |name: String, option: String, setting: String| targets.push((name, option, setting));
        add("latest".into(), "latest".into(), String::new());
        add("immediate".into(), "immediate".into(), "recovery_target = 'immediate'".into());
        let time = |time: &str, micros: i64| {
            let at = Zone::utc().parse(&format!("{time}+00")).unwrap();
            TimestampTz(at.0 + micros).to_string().replace('T', " ").replace('Z', "+00")
        };
        for (name, event) in &self.events {
            if !event.time.is_empty() {
                for (delta, word) in [(0, "at"), (1, "after"), (-1, "before")] {
                    let at = time(&event.time, delta);
                    add(format!("time {word} {name}"), at.clone(), format!("recovery_target_time = '{at}'"));
                }
            }
            for (place, lsn) in [("before", &event.before), ("behind", &event.after)] {
                add(format!("LSN {place} {name}"), lsn.clone(), format!("recovery_target_lsn = '{lsn}'"));
            }
            if !event.xid.is_empty() && event.xid.bytes().all(|b| b.is_ascii_digit()) {
                add(format!("xid of {name}"), format!("xid:{}", event.xid), format!("recovery_target_xid = '{}'", event.xid));
            }
        }
        for name in ["one", "two", "three", "none"] {
            add(format!("point {name}"), format!("name:{name}"), format!("recovery_target_name = '{name}'"));
        }
        for (name, (_, start)) in &self.backups {
            add(format!("LSN of backup {name}"), start.clone(), format!("recovery_target_lsn = '{start}'"));
        }
        add("the future".into(), "2100-01-01 00:00:00+00".into(), "recovery_target_time = '2100-01-01 00:00:00+00'".into());
        add("no xid".into(), "xid:3999999999".into(), "recovery_target_xid = '3999999999'".into());
        targets
    }

    /// Some of the cross product, the same ones each time, with each value of each side in it.
    fn situations(&self) -> Vec<Situation> {
        let backups = [Some("first"), Some("standby"), Some("second"), Some("third"), None];
        let targets = self.targets();
        let damages = [
            Damage::None,
            Damage::Missing,
            Damage::None,
            Damage::Flipped,
            Damage::None,
            Damage::Truncated,
            Damage::ZeroedTail,
            Damage::NoHistory,
        ];
        let places: Vec<&'static str> = self.events.keys().copied().collect();
        let timelines = [None, None, Some(1), None, Some(2)];
        // Numbers without a common factor meet in all ways.
        let mut step = 0x2545_F491_4F6C_DD1D_u64;
        let mut next = |n: usize| {
            step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (step >> 33) as usize % n
        };
        (0..SITUATIONS)
            .map(|at| Situation {
                backup: backups[at % backups.len()],
                target: targets[(at * 7 + next(3) * targets.len() / 3) % targets.len()].clone(),
                inclusive: at % 3 != 2,
                damage: damages[at % damages.len()],
                place: places[next(places.len())],
                timeline: timelines[next(timelines.len())],
            })
            .collect()
    }

    /// Situations besides the cross product.
    fn others(&self) -> Vec<Situation> {
        let targets = self.targets();
        let of = |backup, name: &str, damage, timeline| Situation {
            backup: Some(backup),
            target: targets.iter().find(|target| target.0 == name).unwrap_or_else(|| panic!("{name}")).clone(),
            inclusive: true,
            damage,
            place: "a",
            timeline,
        };
        // A server that misses the new timeline's segments goes on in the old one's, beyond the place where that was left.
        let mut others: Vec<Situation> = ["latest", "LSN behind lost", "LSN before lost late", "point three", "LSN before h"]
            .iter()
            .flat_map(|name| ["first", "second"].map(|backup| of(backup, name, Damage::HistoryAlone, Some(2))))
            .collect();
        // After a crash, recovery begins in pg_wal. A label counts as one whatever method it names, or none.
        for name in ["latest", "immediate", "LSN before h", "time at h"] {
            others.push(of("crashed", name, Damage::None, Some(1)));
            others.push(of("no method", name, Damage::None, Some(1)));
        }
        others
    }

    /// A copy of the archive with the damage of `situation`.
    fn damaged(&self, situation: &Situation) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in fs::read_dir(&self.archive).unwrap().flatten() {
            fs::hard_link(file.path(), dir.path().join(file.file_name()))
                .or_else(|_| fs::copy(file.path(), dir.path().join(file.file_name())).map(drop))
                .unwrap();
        }
        let path = dir.path().join(&self.events[situation.place].segment);
        let change = |change: &dyn Fn(&mut Vec<u8>)| {
            let Ok(mut bytes) = fs::read(&path) else { return };
            change(&mut bytes);
            // Not through the link.
            fs::remove_file(&path).unwrap();
            fs::write(&path, bytes).unwrap();
        };
        match situation.damage {
            Damage::None => {}
            Damage::Missing => drop(fs::remove_file(&path)),
            Damage::Flipped => change(&|bytes| bytes[300_001] ^= 0x10),
            Damage::Truncated => change(&|bytes| bytes.truncate(600_000)),
            Damage::ZeroedTail => change(&|bytes| bytes[401_408..].fill(0)),
            Damage::NoHistory => drop(fs::remove_file(dir.path().join("00000002.history"))),
            Damage::HistoryAlone => {
                let files = fs::read_dir(dir.path()).unwrap().flatten();
                let of_two = |name: &str| name.len() == 24 && name.starts_with("00000002");
                files.filter(|file| file.file_name().to_str().is_some_and(of_two)).for_each(|file| fs::remove_file(file.path()).unwrap());
            }
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        give(dir.path()).unwrap();
        dir
    }

    fn directory(&self, backup: &str) -> &Path {
        &self.backups.get(backup).unwrap_or_else(|| &self.others[backup]).0
    }

    /// What both say.
    fn ask(&self, situation: &Situation) -> Asked {
        let archive = self.damaged(situation);
        let mut args = vec!["--reach".to_owned(), situation.target.1.clone(), "--format".into(), "json".into(), "--quiet".into()];
        if let Some(backup) = situation.backup {
            args.extend(["--from-backup".to_owned(), self.directory(backup).display().to_string()]);
        }
        if let Some(timeline) = situation.timeline {
            args.extend(["--timeline".to_owned(), timeline.to_string()]);
        }
        if !situation.inclusive {
            args.push("--exclusive".to_owned());
        }
        args.push(".".to_owned());
        let (status, out, err) = super::verify(archive.path(), args);
        let ours = out.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).find(|line| line["type"] == "restore");
        let ours = ours.unwrap_or_else(|| panic!("{situation:?}: {status} {out} {err}"));
        assert_eq!(status, i32::from(ours["reach"] != "yes"), "{ours:#}");
        // The one that was chosen, by where it starts.
        let chosen = |start: &str| {
            let lsn = |text: &str| text.parse::<pgwal::Lsn>().unwrap();
            self.backups.iter().find(|(_, backup)| lsn(&backup.1) == lsn(start)).map(|(name, _)| *name)
        };
        let backup = situation.backup.or_else(|| ours["start"].as_str().and_then(chosen));
        let backup = backup.unwrap_or_else(|| panic!("{situation:?}: no backup: {ours:#}"));
        let mut settings = format!(
            "restore_command = 'cp {}/%f %p'\narchive_mode = off\nhot_standby = off\nrecovery_target_action = promote\n\
             recovery_target_inclusive = {}\nlog_timezone = UTC\nshared_buffers = 4MB\n{}\n",
            archive.path().display(),
            if situation.inclusive { "on" } else { "off" },
            situation.target.2
        );
        // What the answer says that has to be set.
        if ours["caveats"].as_array().unwrap().iter().any(|caveat| caveat["caveat"] == "read_ahead") {
            settings += "recovery_prefetch = off\n";
        }
        if let Some(timeline) = situation.timeline {
            settings += &format!("recovery_target_timeline = '{timeline}'\n");
        }
        let server = self.postgres.recovery(self.directory(backup), &settings).unwrap();
        Asked { backup, ours, server }
    }
}

/// The two answers.
struct Asked {
    backup: &'static str,
    ours: Value,
    server: Recovery,
}

impl Asked {
    /// The last transaction that the server replayed, where it says so.
    fn server_time(&self) -> Option<TimestampTz> {
        let line = self.server.log.lines().rfind(|line| line.contains("last completed transaction was at log time"))?;
        let time = line.split("log time ").nth(1)?;
        Some(pgwal::time_input::parse(time, &Zone::utc(), TimestampTz(0)).unwrap())
    }

    /// What it logs leaves out a commit that has the target LSN itself, although that is replayed.
    fn has_commit_at_target(&self, time: Option<TimestampTz>) -> bool {
        let last_commit = self.server.last_commit.as_ref().and_then(|time| Zone::utc().parse(time).ok());
        self.server.log.contains("recovery stopping after WAL location (LSN)") && time.is_some() && time == last_commit
    }

    fn fatal(&self) -> &str {
        let line = self.server.log.lines().find(|line| line.contains("FATAL: ") || line.contains("PANIC: "));
        line.and_then(|line| line.split("FATAL:  ").nth(1).or_else(|| line.split("PANIC:  ").nth(1))).unwrap_or_default()
    }

    /// The time of our last transaction, and whether the server would open.
    fn our_end(&self) -> (bool, Option<TimestampTz>) {
        let time = |value: &Value| value.as_str().map(|time| Zone::utc().parse(time).unwrap());
        match self.ours["reach"].as_str().unwrap() {
            "yes" => (true, time(&self.ours["last_transaction"])),
            // Also where the backup is too new for the target time, which a server does not see.
            _ => (self.ours["how_far"]["opens"] == true, time(&self.ours["how_far"]["last_transaction"])),
        }
    }

    /// What is different; empty: nothing.
    fn differs(&self) -> String {
        let (opens, time) = self.our_end();
        let obstacle = self.ours["obstacle"]["obstacle"].as_str().unwrap_or_default();
        let mut text = String::new();
        if opens != self.server.opened {
            let _ = write!(text, "the server {}; ", if self.server.opened { "opened" } else { "refused" });
        }
        // It tells where redo ended, if it came so far.
        let says = self.server.log.contains("redo done at");
        if (self.server.opened || says) && time != self.server_time() && !self.has_commit_at_target(time) {
            let _ = write!(text, "ours ends at {time:?}, the server at {:?}; ", self.server_time());
        }
        let expected: &[&str] = match obstacle {
            "before_consistency" if self.backup == "no method" => {
                &["WAL ends before end of online backup", "is before consistent recovery point"]
            }
            "before_consistency" => &["requested recovery stop point is before consistent recovery point"],
            "wrong_size" => &["has wrong size"],
            "no_own_wal" => &["could not locate a valid checkpoint record", "could not locate required checkpoint record"],
            // It looks for the checkpoint first, where another timeline may have something else.
            "not_descendant" => &[
                "is not a child of this server's history",
                "does not contain minimum recovery point",
                "could not locate required checkpoint record",
                "could not find redo location",
            ],
            "no_history" => &["does not exist"],
            "missing" | "damaged" | "end" if !opens => &[
                "recovery ended before configured recovery target was reached",
                "could not locate required checkpoint record",
                "could not find redo location",
                "WAL ends before",
            ],
            _ => &[""],
        };
        if !self.server.opened && !expected.iter().any(|text| self.fatal().contains(text)) {
            let _ = write!(text, "ours is \"{obstacle}\"; ");
        }
        text
    }
}

/// The newest server that is installed, and those of `PGWAL_TEST_SERVERS`.
#[test]
fn servers_agree() {
    let Some(installed) = Postgres::find_or_skip(None, "restore::servers_agree") else { return };
    let listed = std::env::var_os("PGWAL_TEST_SERVERS").is_some();
    let mut servers = if listed { Postgres::all() } else { Vec::new() };
    if servers.iter().all(|server| server.major != installed.major) {
        servers.push(installed);
    }
    let mut wrong = Vec::new();
    for postgres in servers {
        wrong.extend(ask_all(postgres));
    }
    assert!(wrong.is_empty(), "{}:\n{}", wrong.len(), wrong.join("\n\n"));
}

/// Asks all questions, prints the table, and returns the differences.
fn ask_all(postgres: Postgres) -> Vec<String> {
    let major = postgres.major;
    let history = history(postgres);
    let mut situations = history.situations();
    situations.extend(history.others());
    let (next, asked) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(situation) = situations.get(at) else { return };
                    let answers = history.ask(situation);
                    asked.lock().unwrap().insert(at, answers);
                }
            });
        }
    });
    let asked = asked.into_inner().unwrap();
    let mut wrong = Vec::new();
    let (mut yes, mut no) = (0, 0);
    let mut table = format!("PostgreSQL {major}\n");
    let _ = writeln!(
        table,
        "{:>2}  {:<9} {:<27} {:<4} {:<28} {:<3} {:<7} {:<28} server",
        "#", "backup", "target", "incl", "damage", "tli", "ours", "last transaction"
    );
    for (at, answers) in &asked {
        let situation = &situations[*at];
        let damage = match situation.damage {
            Damage::None => String::new(),
            Damage::NoHistory => "no history file".to_owned(),
            Damage::HistoryAlone => "no segment of 2".to_owned(),
            damage => format!("{damage:?} at {}", situation.place),
        };
        let named = if situation.backup.is_some() { answers.backup.to_owned() } else { format!("→{}", answers.backup) };
        let (_, time) = answers.our_end();
        let _ = writeln!(
            table,
            "{:>2}  {:<9} {:<27} {:<4} {:<28} {:<3} {:<7} {:<28} {}",
            at + 1,
            named,
            situation.target.0,
            if situation.inclusive { "yes" } else { "no" },
            damage,
            situation.timeline.map_or("-".to_owned(), |timeline| timeline.to_string()),
            answers.ours["reach"].as_str().unwrap(),
            time.map_or("-".to_owned(), |time| time.to_string()),
            if answers.server.opened { "opened".to_owned() } else { answers.fatal().to_owned() },
        );
        *(if answers.ours["reach"] == "yes" { &mut yes } else { &mut no }) += 1;
        let differs = answers.differs();
        if !differs.is_empty() {
            wrong.push(format!("{major}: #{} {situation:?}\n{differs}\n{:#}\n{}", at + 1, answers.ours, answers.server.log));
        }
    }
    let _ = writeln!(table, "PostgreSQL {major}: {} of {} agree, {yes} yes, {no} no", asked.len() - wrong.len(), asked.len());
    // Shown whether or not the test passes.
    std::io::stdout().write_all(table.as_bytes()).unwrap();
    assert!(asked.len() > SITUATIONS);
    assert!(yes >= 12 && no >= 12, "{major}: {yes} yes, {no} no");
    wrong
}
