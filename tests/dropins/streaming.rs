//! pg_basebackup and pg_receivewal beside the real ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgwal_testkit::server::{Postgres, Server, wait_until};

use super::bin;

const SETTINGS: &str = "wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10";

/// The real program and ours, by name.
struct Pair {
    real: PathBuf,
    ours: PathBuf,
    _bin: tempfile::TempDir,
}

impl Pair {
    fn new(postgres: &Postgres, name: &str) -> Pair {
        let bin = bin();
        Pair { real: postgres.program(name), ours: bin.path().join(name), _bin: bin }
    }

    /// What both come to: the status, and what they say, without where they lie.
    fn run(&self, server: Option<&Server>, args: &[&str]) -> [(Option<i32>, String); 2] {
        [&self.real, &self.ours].map(|program| {
            let output = run(program, server, args);
            let said = String::from_utf8_lossy(&output.stderr).replace(program.to_str().unwrap(), "PROGRAM");
            assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{args:?}");
            (output.status.code(), said)
        })
    }
}

fn run(program: &Path, server: Option<&Server>, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env_remove("PG_COLOR").env("LC_ALL", "C").env("PGUSER", "postgres").env("PGHOST", "/nowhere");
    if let Some(server) = server {
        command.env("PGHOST", server.socket()).env("PGPORT", server.port().to_string());
    }
    command.output().unwrap()
}

/// What nobody can read is no backup.
#[test]
fn a_backup_to_a_closed_standard_output_is_an_error() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "drop-ins, closed standard output") else { return };
    let server = postgres.start(&[], SETTINGS).unwrap();
    let pair = Pair::new(&postgres, "pg_basebackup");
    let [real, ours] = [&pair.real, &pair.ours].map(|program| {
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$0\" \"$@\" >&-"]).arg(program).args(["-D", "-", "-F", "tar", "-X", "none", "-c", "fast"]);
        command.env_remove("PG_COLOR").env("LC_ALL", "C").env("PGUSER", "postgres").env("PGHOST", server.socket());
        let output = command.env("PGPORT", server.port().to_string()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    });
    assert_eq!((real.0, ours.0), (Some(1), Some(1)), "{}{}", real.1, ours.1);
    // The real one has its connection under that number by then, and writes to that.
    let said = "pg_basebackup: error: could not write to file \"-\": ";
    assert!(real.1.contains(said) && ours.1 == format!("{said}Bad file descriptor\n"), "{}{}", real.1, ours.1);
}

/// What libpq says on its own, and numbers that it reads only when it connects.
#[test]
fn libpq_speaks_before_and_while_it_connects() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "drop-ins, libpq's words") else { return };
    let server = postgres.start(&[], SETTINGS).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let passfile = dir.path().join("passfile");
    fs::write(&passfile, "*:*:*:*:secret\n").unwrap();
    fs::set_permissions(&passfile, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let dead = pgwal_testkit::server::HeldPort::new().unwrap();
    let (wal, backup) = (dir.path().join("wal"), dir.path().join("backup"));
    fs::create_dir(&wal).unwrap();
    for (name, args) in [
        ("pg_receivewal", vec!["-n", "--endpos=0/1", "-D", wal.to_str().unwrap()]),
        ("pg_basebackup", vec!["-X", "none", "-c", "fast", "--no-sync", "-D", backup.to_str().unwrap()]),
    ] {
        let pair = Pair::new(&postgres, name);
        let all = |more: &str| {
            let conninfo = format!("passfile={} {more}", passfile.display());
            let args = [&args[..], &["-d", &conninfo]].concat();
            [&pair.real, &pair.ours].map(|program| {
                let _ = fs::remove_dir_all(&backup);
                let output = run(program, Some(&server), &args);
                let said = String::from_utf8_lossy(&output.stderr).replace(program.to_str().unwrap(), "PROGRAM");
                (output.status.code(), said)
            })
        };
        // With a connection and without one.
        let unix = ["", "port=1", "connect_timeout=x", "connect_timeout=5x port=1", "connect_timeout=99999999999", "keepalives_idle=x"];
        let tcp = ["connect_timeout=x", "keepalives_idle=x", "keepalives=2x", "tcp_user_timeout=x"];
        let tcp = tcp.map(|setting| format!("{setting} host=127.0.0.1 port={}", dead.port()));
        let wrong = ["port=0", "port=65536", "port=x", "port=-1", "port=99999999999", "sslmode=x"];
        let lines = unix.iter().copied().chain(tcp.iter().map(String::as_str)).chain(wrong).collect::<Vec<_>>();
        for line in lines {
            let [real, ours] = all(line);
            let (warning, rest) = real.1.split_once('\n').unwrap();
            assert!(warning.starts_with("WARNING: password file \""), "{name} {line}: {}", real.1);
            // Ours has looked at no password file where the settings are wrong.
            let said = if wrong.contains(&line) { rest } else { &real.1 };
            assert_eq!((ours.0, ours.1.as_str()), (real.0, said), "{name} {line}");
        }
    }
}

#[test]
fn wrong_command_lines_are_answered_as_by_the_real_programs() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "drop-ins, wrong command lines") else { return };
    let lines: [(&str, &[&str]); 2] = [
        (
            "pg_basebackup",
            &[
                "",
                "-D b x y",
                "-D b -F x",
                "-D b -X x",
                "-D b -c x",
                "-D b -s x",
                "-D b -s -1",
                "-D b -s 99999999",
                "-D b -r",
                "-D b -r x",
                "-D b -r 1",
                "-D b -r -1",
                "-D b -r 64G",
                "-D b -r 64kB",
                "-D b -r 9999M",
                "-D b -T=/foo",
                "-D b -T/foo=",
                "-D b -Tfoo",
                "-D b -T/a=/b=/c",
                "-D b -Ta=/b",
                "-D b -T/a=b",
                "-D b -Z none:1",
                "-D b -Z none+",
                "-D b -Z gzip:",
                "-D b -Z gzip:thunk",
                "-D b -Z gzip:level",
                "-D b -Z gzip:level=",
                "-D b -Z gzip:level=high",
                "-D b -Z gzip:level=9,",
                "-D b -Z gzip:workers=3",
                "-D b -z",
                "-D b -Z 1",
                "-D b -t blackhole",
                "-t blackhole",
                "-t blackhole -X none -F t",
                "-t blackhole -X none -Z client-gzip",
                "-t blackhole -X none --waldir /w",
                "-D - -F t",
                "-D b -X fetch -S s",
                "-D b -C",
                "-D b -C -S s --no-slot",
                "-D b --waldir w",
                "-D b -F t --waldir /w",
                "-D b -P --no-estimate-size",
                "-D b --no-manifest --manifest-checksums sha256",
                "-D b --no-manifest --manifest-force-encode",
                "-D b --no-",
                "-D b --no-such-option",
                "-D b -q",
                "-D b -d nonsense",
                "-D b --help",
                "-D b -h /nowhere",
                "-D b -h 127.0.0.1 -p 1",
                "-D b -h 127.0.0.1,/nowhere -p 1",
                "-D b -h no.such.host.invalid",
                "-D b -d hostaddr=name",
                "-D b -h /a/path/that/is/longer/than/any/socket/may/have/one/in/the/file/system/of/this/machine/or/any/other/one/of/its/kind",
            ],
        ),
        (
            "pg_receivewal",
            &[
                "",
                "-D d x",
                "-D d --create-slot",
                "--drop-slot",
                "-D d --create-slot --drop-slot -S s",
                "-D d --synchronous --no-sync",
                "-D d -E x",
                "-D d -s 99999999",
                "-D d -Z none:1",
                "-D d -Z bzip2",
                "-D d -q",
                "-D /nowhere/x",
                "--create-slot -S s -d nonsense",
                "-D /tmp -n -h /nowhere -E 0/100000000",
                "-D /tmp -n -h /nowhere -E -1/+1x",
                "-D /tmp -n -h 127.0.0.1 -p 1",
                "-D /tmp -n -h no.such.host.invalid",
            ],
        ),
    ];
    for (name, lines) in lines {
        let pair = Pair::new(&postgres, name);
        for line in lines {
            let args: Vec<&str> = line.split_whitespace().collect();
            let [real, ours] = pair.run(None, &args);
            assert_eq!(ours, real, "{name} {line}");
            assert_eq!(real.0, Some(1), "{name} {line}");
        }
    }
}

/// What is said, with positions, numbers and names made alike, without the lines of progress.
fn alike(said: &str, dir: &Path) -> Vec<String> {
    let said = said.replace(dir.to_str().unwrap(), "DIR");
    let is_hex = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_hexdigit());
    let word = |word: &str| match word.split_once('/') {
        Some((high, low)) if is_hex(high) && is_hex(low) => "LSN".to_owned(),
        _ => word.chars().filter(|c| !c.is_ascii_digit()).collect(),
    };
    let line = |line: &str| line.split(' ').map(word).collect::<Vec<_>>().join(" ");
    said.lines().filter(|line| !line.contains(" kB (")).map(line).collect()
}

#[test]
fn backups_are_told_of_as_by_the_real_program() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "drop-in pg_basebackup, messages") else { return };
    let server = postgres.start(&[], SETTINGS).unwrap();
    let full = server.dir().join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("precious"), "").unwrap();
    server.sql("SELECT pg_create_physical_replication_slot('taken')").unwrap();
    let pair = Pair::new(&postgres, "pg_basebackup");
    for args in [
        &["-v"][..],
        &["-P"],
        &["-v", "-P", "-N"],
        &["-v", "-X", "fetch"],
        &["-v", "-X", "none", "--no-manifest"],
        &["-v", "-F", "t", "-z"],
        &["-v", "-F", "t", "-Z", "lz4"],
        &["-v", "--no-slot"],
        &["-v", "-S", "nope", "-F", "t"],
        &["-v", "-C", "-S", "kept"],
        &["-Z", "server-gzip:level=high"],
        &["-Z", "server-extrasquishy"],
        &["--waldir", full.to_str().unwrap()],
        &["--waldir", "/dev/null"],
        &["-C", "-S", "taken"],
        &["-n", "-Z", "server-lz4:99"],
    ] {
        let mut seen = Vec::new();
        for (program, dir) in [(&pair.real, "real"), (&pair.ours, "ours")] {
            let dir = server.dir().join(dir);
            let _ = fs::remove_dir_all(&dir);
            // Once is enough to wait for the disk.
            let no_sync: &[&str] = if args == ["-v"] { &[] } else { &["-N"] };
            let output = run(program, Some(&server), &[&["-c", "fast", "-D", dir.to_str().unwrap()], no_sync, args].concat());
            if output.status.success() && args.contains(&"-C") {
                server.sql("SELECT pg_drop_replication_slot('kept')").unwrap();
            }
            let mut files: Vec<_> = fs::read_dir(&dir).into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect();
            files.sort();
            seen.push((output.status.code(), alike(&String::from_utf8_lossy(&output.stderr), &dir), files));
        }
        assert_eq!(seen[1], seen[0], "{args:?}");
        assert!(full.join("precious").exists());
    }
}

#[test]
fn receiving_is_told_of_as_by_the_real_program() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "drop-in pg_receivewal, messages") else { return };
    let server = postgres.start(&["--wal-segsize=1", "-g"], &format!("{SETTINGS}\nwal_keep_size = 1GB")).unwrap();
    let pair = Pair::new(&postgres, "pg_receivewal");
    let dirs = ["real", "ours"].map(|name| server.dir().join(name));
    dirs.iter().for_each(|dir| fs::create_dir(dir).unwrap());
    // Slots: both programs do the same to the same server, one after the other.
    for args in [
        &["--create-slot", "-v"][..],
        &["--create-slot", "-v"],
        &["--create-slot", "--if-not-exists"],
        &["--drop-slot", "-v"],
        &["--drop-slot"],
    ] {
        let slots = ["real", "ours"].map(|slot| {
            let program = if slot == "real" { &pair.real } else { &pair.ours };
            let output = run(program, Some(&server), &[args, &["-S", slot]].concat());
            (output.status.code(), String::from_utf8_lossy(&output.stderr).replace(slot, "SLOT"))
        });
        assert_eq!(slots[1], slots[0], "{args:?}");
        let kept = server.sql("SELECT count(*) FROM pg_replication_slots WHERE restart_lsn IS NOT NULL").unwrap();
        assert_eq!(kept, "0", "a slot that is created so keeps nothing yet");
    }
    server.sql("SELECT pg_create_physical_replication_slot(name, true) FROM unnest(ARRAY['real', 'ours']) name").unwrap();
    server.sql("CREATE TABLE t AS SELECT i, repeat('x', 200) FROM generate_series(1, 20000) i").unwrap();
    let end = server.sql("SELECT pg_current_wal_flush_lsn()").unwrap();
    server.sql("INSERT INTO t VALUES (1)").unwrap();
    for args in [&["-v"][..], &["-v", "-Z", "1"]] {
        let seen = [(&pair.real, &dirs[0], "real"), (&pair.ours, &dirs[1], "ours")].map(|(program, dir, slot)| {
            let args = [args, &["-n", "-E", &end, "-S", slot, "-D", dir.to_str().unwrap()]].concat();
            let output = run(program, Some(&server), &args);
            let mut files: Vec<String> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            files.sort();
            let mut said: Vec<String> = String::from_utf8_lossy(&output.stderr)
                .lines()
                .filter(|line| !line.contains("starting log streaming"))
                .map(str::to_owned)
                .collect();
            // Where a message ends is where it stops, which may be in the middle of the last segment; the real program says it twice.
            said.iter_mut().filter(|line| line.contains("stopped log streaming at ")).for_each(|line| line.truncate(40));
            if said.iter().filter(|line| line.contains("stopped log streaming at ")).count() > 1 {
                said.pop();
            }
            (output.status.code(), said, files)
        });
        assert_eq!(seen[1], seen[0], "{args:?}");
        assert_eq!(seen[0].0, Some(0));
    }
    let modes = |dir: &Path| {
        use std::os::unix::fs::PermissionsExt;
        let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
        let mut modes: Vec<_> = entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().permissions().mode() & 0o777)).collect();
        modes.sort();
        modes
    };
    assert_eq!(modes(&dirs[1]), modes(&dirs[0]), "the group may read them, as it may the data directory");
    let [real, ours] = pair.run(Some(&server), &["-D", server.dir().to_str().unwrap(), "-S", "nope", "-n", "-v"]);
    assert_eq!(ours, real);
    // Told to stop, it is done.
    let mut child = Command::new(&pair.ours)
        .args(["-D", dirs[1].to_str().unwrap()])
        .env("PGHOST", server.socket())
        .env("PGUSER", "postgres")
        .spawn()
        .unwrap();
    wait_until("the stream", || server.sql("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'").unwrap() == "1");
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
