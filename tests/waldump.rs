//! The program under the name `pg_waldump`, against what the real one of each major said: every stored case of
//! `fixtures/vNN/cases` and `fixtures/vNN/damage`, and a live comparison with an installed one.
#![cfg(unix)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{Read, Seek};
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use pgwal_testkit::fixtures;
use pgwal_testkit::server::wait_until;
use rayon::prelude::*;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// Cases that are not equal: first and last major, end of the name, reason.
const EXCEPTIONS: &[(u8, u8, &str, &str)] = &[
    (13, 13, "follow-interrupted", "13 is killed by SIGINT and loses its output; here it ends as later majors do"),
    (13, 13, "follow-interrupted-stats", "as follow-interrupted"),
    (17, 19, "zone-none", "the stored output is of a machine without time zone files, on which C takes any name for a zone"),
    (13, 19, "-fork-4", "C reads the name behind the last fork's, which is that of something else"),
];

/// Cases in which the program finds no WAL, so that it cannot know the major: it speaks as that of 18.
const WITHOUT_WAL: &[&str] = &["path-none", "path-empty-folder", "path-empty-folder-segment", "path-environment-wrong"];

/// Options that came with a later major, which work on WAL of every major here.
const LATER_OPTIONS: &[&str] = &[
    "invalid option -- 'B'",
    "invalid option -- 'F'",
    "invalid option -- 'R'",
    "invalid option -- 'w'",
    "unrecognized option '--block",
    "unrecognized option '--fork",
    "unrecognized option '--fullpage",
    "unrecognized option '--relation",
    "unrecognized option '--save-fullpage",
];

/// Folders of one major: name, contents of each file.
struct Major {
    number: u8,
    dir: PathBuf,
}

impl Major {
    fn all() -> Vec<Major> {
        let mut majors = Vec::new();
        for number in 10..=19 {
            let dir = fixtures::root().join(format!("v{number}"));
            if dir.join("cases/cases.json").exists() {
                majors.push(Major { number, dir });
            }
        }
        assert!(!majors.is_empty(), "no cases in {}", fixtures::root().display());
        majors
    }

    /// Those with segments of servers that are built with other sizes of pages.
    fn odd() -> Vec<Major> {
        let majors = [15, 18].map(|number| Major { number, dir: fixtures::root().join(format!("odd/v{number}")) });
        assert!(majors.iter().all(|major| major.dir.join("blocks32/damage.json").exists()), "no damaged segments with odd pages");
        majors.into()
    }

    fn cases(&self, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        if text.is_empty() { Vec::new() } else { serde_json::from_str(&text).unwrap() }
    }

    /// Puts the segments of `scenario` into `to`, as links; compressed ones are unpacked.
    fn put_scenario(&self, scenario: &str, to: &Path) {
        for path in files(&self.dir.join(scenario)) {
            let name = path.file_name().unwrap().to_str().unwrap();
            let is_segment = name.len() >= 8 && name[..8].bytes().all(|b| b.is_ascii_hexdigit());
            match name.strip_suffix(".zst") {
                Some(name) if is_segment => unpack(&path, &to.join(name)),
                None if is_segment => symlink(&path, to.join(name)).unwrap(),
                _ => {}
            }
        }
    }

    fn put_archives(&self, to: &Path) {
        for path in files(&self.dir.join("cases/archive")) {
            symlink(&path, to.join(path.file_name().unwrap())).unwrap();
        }
        for path in files(&self.dir.join("cases/archive/packed")) {
            unpack(&path, &to.join(path.file_stem().unwrap()));
        }
    }

    /// A stored output of `scenario`, cut after `lines` lines.
    fn first_lines(&self, scenario: &str, file: &str, lines: u64) -> Vec<u8> {
        let text = fs::read(self.dir.join(scenario).join(file)).unwrap();
        text.split_inclusive(|&b| b == b'\n').take(lines as usize).flatten().copied().collect()
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.is_file());
    files.sort();
    files
}

fn unpack(from: &Path, to: &Path) {
    zstd::stream::copy_decode(fs::File::open(from).unwrap(), fs::File::create(to).unwrap()).unwrap();
}

/// The program under test, by its other name.
fn pg_waldump() -> &'static Path {
    static LINK: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, link) = LINK.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("pg_waldump");
        symlink(env!("CARGO_BIN_EXE_pgwal"), &link).unwrap();
        (dir, link)
    });
    link
}

/// Runs `program` as `pg_waldump` in `dir`.
fn run(program: &Path, dir: &Path, args: &[OsString], env: &[(String, String)]) -> Output {
    command(program, dir, args, env).output().unwrap()
}

/// As [`run`], interrupted once it waits for more WAL to be written.
fn interrupted(program: &Path, dir: &Path, args: &[OsString], env: &[(String, String)]) -> Output {
    let (mut out, mut err) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
    let mut command = command(program, dir, args, env);
    let mut child = command.stdout(out.try_clone().unwrap()).stderr(err.try_clone().unwrap()).spawn().unwrap();
    // It neither reads from nor writes to anything that would have it sleep.
    let stat = format!("/proc/{}/stat", child.id());
    let state = || fs::read_to_string(&stat).ok().and_then(|stat| stat.rsplit(')').next()?.trim_start().chars().next());
    match cfg!(target_os = "linux") {
        true => wait_until("the end of the WAL that is there", || matches!(state(), Some('S' | 'Z'))),
        false => std::thread::sleep(Duration::from_secs(5)),
    }
    assert!(Command::new("kill").arg("-INT").arg(child.id().to_string()).status().unwrap().success());
    let status = child.wait().unwrap();
    let [stdout, stderr] = [&mut out, &mut err].map(|file| {
        let mut bytes = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    });
    Output { status, stdout, stderr }
}

fn command(program: &Path, dir: &Path, args: &[OsString], env: &[(String, String)]) -> Command {
    let mut command = Command::new(program);
    command.arg0("pg_waldump").args(args).current_dir(dir);
    command.env("LC_ALL", "C").env("TZ", "UTC").env_remove("PGDATA").env_remove("PG_COLOR").env_remove("TMPDIR");
    // The real one looks for itself there.
    command.env("PATH", program.parent().unwrap());
    command.envs(env.iter().cloned()).stdin(Stdio::null());
    command
}

fn strings(value: &Value) -> Vec<OsString> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().unwrap().into()).collect()
}

fn pairs(value: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    value.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Whether the major of the case lacked what it asks for: an option, or reading archives. Then there is nothing to compare with,
/// but the program must not refuse it.
fn is_later(major: &Major, case: &Value, output: &Output) -> Option<Option<String>> {
    let expected = case["stderr"].as_str().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    let refused = |texts: &[&str]| texts.iter().any(|text| stderr.contains(text)).then(|| format!("{}: {stderr}", case["name"]));
    if LATER_OPTIONS.iter().any(|option| expected.contains(option)) {
        return Some(refused(&["invalid option", "unrecognized option"]));
    }
    if case["dir"] == "archive" && major.number < 19 && !expected.contains("too many") {
        return Some(refused(&["Not a directory", "segment size"]));
    }
    None
}

/// What is different from the stored case; `None`: nothing.
fn compare(case: &Value, stdout: &[u8], output: &Output, dir: &Path) -> Option<String> {
    let mut problems = Vec::new();
    let status = output.status.code();
    if status != case["status"].as_i64().map(|status| status as i32) {
        problems.push(format!("status: expected {}, was {status:?}", case["status"]));
    }
    let stderr = String::from_utf8_lossy(&output.stderr);
    if stderr != case["stderr"].as_str().unwrap() {
        problems.push(format!("stderr: expected {}\n           was {:?}", case["stderr"], stderr));
    }
    let is_first = |options: [&str; 2]| options.iter().any(|option| case["args"][0] == **option);
    if is_first(["--help", "-?"]) {
        if !output.stdout.starts_with(b"pg_waldump (pgwal)") {
            problems.push("stdout does not say which program it is".to_owned());
        }
    } else if is_first(["--version", "-V"]) {
        // A line as the real program has it, and one that says which program it is.
        let version = concat!("pg_waldump (PostgreSQL) 18\npgwal ", env!("CARGO_PKG_VERSION"), ", standing in for it\n");
        if output.stdout != version.as_bytes() {
            problems.push(format!("stdout: expected {version:?}, was {:?}", String::from_utf8_lossy(&output.stdout)));
        }
    } else if output.stdout != stdout {
        let (expected, was) = (lines(stdout), lines(&output.stdout));
        let at = expected.iter().zip(&was).take_while(|(expected, was)| is_same_line(expected, was)).count();
        if at < expected.len().max(was.len()) {
            problems.push(format!("stdout, line {at} of {}: expected {:?}\n   was {:?}", expected.len(), expected.get(at), was.get(at)));
        }
    }
    if let Some(expected) = case["files"].as_object() {
        let mut found = BTreeMap::new();
        let mut folders = vec![dir.join("out")];
        while let Some(folder) = folders.pop() {
            folders.extend(fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_dir()));
            for path in files(&folder) {
                let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(name, hex(&Sha256::digest(fs::read(path).unwrap())));
            }
        }
        let expected: BTreeMap<_, _> = expected.iter().map(|(name, hash)| (name.clone(), hash.as_str().unwrap().to_owned())).collect();
        if found != expected {
            problems.push(format!("files: expected {expected:?}\n  found {found:?}"));
        }
    }
    (!problems.is_empty()).then(|| format!("{}: {:?}\n  {}", case["name"], case["args"], problems.join("\n  ")))
}

/// The real program makes something of bytes that are no payload, or are in part; here they are shown as they are.
fn is_same_line(expected: &str, was: &str) -> bool {
    expected == was || was.split_once("[payload does not parse:").is_some_and(|(start, _)| expected.starts_with(start))
}

fn lines(text: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(text).lines().map(str::to_owned).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// Fails with what is different. Many cases wait, so more run at a time than there are cores.
fn check_all<'m>(cases: Vec<(&'m Major, Value)>, check: impl Fn(&'m Major, &Value) -> Option<String> + Sync) {
    assert!(!cases.is_empty(), "no cases");
    let pool = rayon::ThreadPoolBuilder::new().num_threads(16).build().unwrap();
    let wrong: Vec<String> = pool.install(|| {
        let wrong = cases.par_iter().filter_map(|(major, case)| {
            let name = case["name"].as_str().unwrap();
            let excused = EXCEPTIONS.iter().find(|(first, last, end, _)| (*first..=*last).contains(&major.number) && name.ends_with(end));
            match (check(major, case), excused) {
                (None, Some((.., reason))) => Some(format!("{} {}: is equal now, but excused: {reason}", major.number, case["name"])),
                (Some(_), Some(_)) | (None, None) => None,
                (Some(problem), None) => Some(format!("{} {problem}", major.number)),
            }
        });
        wrong.collect()
    });
    for problem in wrong.iter().take(200) {
        println!("{problem}");
    }
    assert!(wrong.is_empty(), "{} of {} cases differ", wrong.len(), cases.len());
}

#[test]
fn command_lines() {
    let majors = Major::all();
    let as_18 = majors.iter().find(|major| major.number == 18).map(|major| major.cases("cases/cases.json")).unwrap_or_default();
    let cases = majors.iter().flat_map(|major| major.cases("cases/cases.json").into_iter().map(move |case| (major, case)));
    check_all(cases.collect(), |major, case| {
        let top = tempfile::tempdir().unwrap();
        let mut dir = top.path().to_owned();
        let data = dir.join("data/pg_wal");
        match case["dir"].as_str().unwrap() {
            "empty" => {}
            "archive" => major.put_archives(&dir),
            "workload/pg_wal" | "data" => {
                fs::create_dir_all(&data).unwrap();
                major.put_scenario("workload", &data);
                if case["dir"] == "data" {
                    dir.push("data");
                }
            }
            scenario => major.put_scenario(scenario, &dir),
        }
        for (name, text) in pairs(&case["make"]) {
            match name.ends_with('/') {
                true => fs::create_dir_all(dir.join(name)).unwrap(),
                false => fs::write(dir.join(name), text).unwrap(),
            }
        }
        let run = if case["interrupt"].is_null() { run } else { interrupted };
        let output = run(pg_waldump(), &dir, &strings(&case["args"]), &pairs(&case["env"]));
        if let Some(result) = is_later(major, case, &output) {
            return result;
        }
        let mut case = case.clone();
        if WITHOUT_WAL.iter().any(|name| case["name"] == *name)
            && let Some(like) = as_18.iter().find(|other| other["name"] == case["name"])
        {
            let mut stderr = like["stderr"].as_str().unwrap().to_owned();
            for (name, ours) in like["args"].as_array().unwrap().iter().zip(case["args"].as_array().unwrap()) {
                stderr = stderr.replace(name.as_str().unwrap(), ours.as_str().unwrap());
            }
            case["stderr"] = stderr.into();
        }
        compare(&case, case["stdout"].as_str().unwrap().as_bytes(), &output, &dir)
    });
}

#[test]
fn damage() {
    let majors = Major::all();
    let odd = Major::odd();
    let usual = majors.iter().flat_map(|major| major.cases("damage/damage.json").into_iter().map(move |case| (major, case)));
    let with_odd_pages = odd.iter().flat_map(|major| major.cases("blocks32/damage.json").into_iter().map(move |case| (major, case)));
    let cases: Vec<_> = usual.chain(with_odd_pages).collect();
    check_all(cases, |major, case| {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path();
        let scenario = case["scenario"].as_str().unwrap();
        major.put_scenario(scenario, dir);
        case["edits"].as_array().unwrap().iter().for_each(|edit| apply(edit, dir));
        let output = run(pg_waldump(), dir, &strings(&case["args"]), &[]);
        let stdout = match case["stdout_of"].as_str() {
            Some(file) => major.first_lines(scenario, file, case["lines"].as_u64().unwrap()),
            None => case["stdout"].as_str().unwrap().as_bytes().to_vec(),
        };
        compare(case, &stdout, &output, dir)
    });
}

/// Applies one edit of a damaged segment; segments are links, so what is changed is copied first.
fn apply(edit: &Value, dir: &Path) {
    let path = |key: &str| edit[key].as_str().map(|name| dir.join(name));
    let file = path("file").unwrap();
    let number = |key: &str| edit[key].as_u64().map(|number| number as usize);
    if edit["remove"] == true {
        return fs::remove_file(file).unwrap();
    }
    if let Some(to) = path("rename") {
        return fs::rename(file, to).unwrap();
    }
    if let Some(to) = path("copy") {
        fs::copy(file, to).unwrap();
        return;
    }
    let mut bytes = if edit.get("create").is_some() { Vec::new() } else { fs::read(&file).unwrap() };
    if let Some(start) = edit["create"].as_str() {
        bytes = unhex(start);
        bytes.resize(number("size").unwrap(), 0);
    }
    if let Some(len) = number("truncate") {
        bytes.resize(len, 0);
    }
    if let Some(more) = edit["append"].as_str() {
        bytes.extend_from_slice(&unhex(more));
    }
    if let Some(at) = number("at") {
        let new = match (edit["put"].as_str(), number("zero"), path("from")) {
            (Some(put), ..) => unhex(put),
            (_, Some(len), _) => vec![0; len],
            (_, _, Some(from)) => {
                let from_at = number("from_at").unwrap();
                fs::read(from).unwrap()[from_at..from_at + number("len").unwrap()].to_vec()
            }
            _ => panic!("{edit}"),
        };
        bytes[at..at + new.len()].copy_from_slice(&new);
    }
    fs::remove_file(&file).or_else(|_| if edit.get("create").is_some() { Ok(()) } else { Err(()) }).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Ends quietly, by the signal, when nobody reads its output.
#[test]
fn a_closed_pipe_ends_it() {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.scenario == "workload" && fixture.major >= 13).unwrap();
    let segments = fixture.segments();
    let mut child = Command::new(pg_waldump())
        .args([&segments[0], segments.last().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(13));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

/// With -f it goes on when the server has written on, also where a page was half written, up to the end that was asked for.
#[test]
fn following_goes_on() {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.scenario == "workload" && fixture.major >= 15).unwrap();
    let segment = &fixture.segments()[0];
    let name: pgwal::SegmentName = segment.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let whole = fs::read(segment).unwrap();
    let end = name.start(whole.len() as u32) + whole.len() as u64;
    let top = tempfile::tempdir().unwrap();
    let path = top.path().join(name.to_string());
    let written_up_to = |len: usize| {
        let mut bytes = whole[..len].to_vec();
        bytes.resize(whole.len(), 0);
        fs::write(top.path().join("new"), bytes).unwrap();
        fs::rename(top.path().join("new"), &path).unwrap();
    };
    written_up_to(300_001);
    let args = ["-f".into(), "-e".into(), end.to_string().into(), OsString::from(name.to_string())];
    let all = run(pg_waldump(), segment.parent().unwrap(), &args[1..], &[]);
    assert!(all.status.success() && all.stdout.len() > whole.len() / 2, "{all:?}");
    // What it prints of the records that are over before this place.
    let text_up_to = |place: pgwal::Lsn| -> usize {
        let text = String::from_utf8_lossy(&all.stdout);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        let lsn = |line: &str| line.split_once("lsn: ").unwrap().1.split(',').next().unwrap().parse::<pgwal::Lsn>().unwrap();
        let over = lines.windows(2).take_while(|pair| lsn(pair[1]) <= place);
        over.map(|pair| pair[0].len()).sum()
    };
    let out = top.path().join("out");
    let printed = || fs::metadata(&out).unwrap().len() as usize;
    let mut following = command(pg_waldump(), top.path(), &args, &[]).stdout(fs::File::create(&out).unwrap()).spawn().unwrap();
    for (len, next) in [(300_001, 500_000), (500_000, whole.len())] {
        let expected = text_up_to(name.start(whole.len() as u32) + len as u64);
        assert!(expected > 0 && expected < all.stdout.len());
        wait_until("what is there", || printed() >= expected);
        assert!(printed() < all.stdout.len());
        written_up_to(next);
    }
    assert!(following.wait().unwrap().success());
    let followed = fs::read(&out).unwrap();
    assert!(followed == all.stdout, "{} bytes, expected {}", followed.len(), all.stdout.len());
}

/// The pg_waldump of `major` that is installed here, where there is one.
fn installed(major: u8) -> Option<PathBuf> {
    let debian = PathBuf::from(format!("/usr/lib/postgresql/{major}/bin/pg_waldump"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::iter::once(debian).chain(std::env::split_paths(&path).map(|dir| dir.join("pg_waldump")));
    found.filter(|program| program.exists()).find(|program| {
        let output = Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
        output.starts_with(format!("pg_waldump (PostgreSQL) {major}").as_bytes())
    })
}

/// Side by side with the real program of 15: all of its WAL here, with every option.
#[test]
fn live_against_15() {
    let Some(real) = installed(15) else {
        println!("skipped: no pg_waldump of PostgreSQL 15 in PATH or /usr/lib/postgresql/15/bin");
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "CI needs PostgreSQL 15");
        return;
    };
    let options: &[&[&str]] = &[
        &[],
        &["-b"],
        &["-z"],
        &["--stats=record"],
        &["-q"],
        &["-n", "7"],
        &["-r", "Heap", "-r", "btree", "-w"],
        &["-F", "fsm"],
        &["-x", "0"],
        &["--bad"],
    ];
    let mut compared = 0;
    for fixture in fixtures::all().iter().filter(|fixture| fixture.major == 15) {
        let segments: Vec<OsString> = fixture.segments().iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        let mut ranges: Vec<Vec<OsString>> = segments.iter().map(|segment| vec![segment.clone()]).collect();
        let (first, last) = (&segments[0], segments.last().unwrap());
        // A range over a switch of timelines waits for a segment that is not there.
        if first.as_encoded_bytes()[..8] == last.as_encoded_bytes()[..8] {
            ranges.push(vec![first.clone(), last.clone()]);
        }
        for range in ranges {
            for options in options {
                let args: Vec<OsString> = options.iter().map(OsString::from).chain(range.iter().cloned()).collect();
                let [expected, was] = [real.as_path(), pg_waldump()].map(|program| run(program, &fixture.dir, &args, &[]));
                let same = expected.status.code() == was.status.code() && expected.stderr == was.stderr && expected.stdout == was.stdout;
                assert!(same, "{} {args:?}: {}", fixture.scenario, String::from_utf8_lossy(&was.stderr));
                compared += 1;
            }
        }
    }
    assert!(compared > 0);
}
