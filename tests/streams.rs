//! Standard output and standard error that cannot be written: what is done, and the exit status, do not depend on who reads them.
#![cfg(target_os = "linux")]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use pgwal_testkit::fixtures;
use pgwal_testkit::server::Postgres;
use tempfile::TempDir;

/// A stream that does not take what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Broken {
    Full,
    ClosedPipe,
    Closed,
}

const BROKEN: [Broken; 3] = [Broken::Full, Broken::ClosedPipe, Broken::Closed];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    Stdout,
    Stderr,
}

/// `command`, with one of its streams broken.
fn with_broken(command: &[&OsStr], stream: Stream, broken: Broken) -> Command {
    let mut shell = Command::new("sh");
    let close = match (broken, stream) {
        (Broken::Closed, Stream::Stdout) => ">&-",
        (Broken::Closed, Stream::Stderr) => "2>&-",
        _ => "",
    };
    shell.arg("-c").arg(format!("exec \"$@\" {close}")).arg("sh").args(command);
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let stdio = match broken {
        Broken::Full => Stdio::from(File::options().write(true).open("/dev/full").unwrap()),
        Broken::ClosedPipe => {
            let (reader, writer) = io::pipe().unwrap();
            drop(reader);
            writer.into()
        }
        Broken::Closed => Stdio::null(),
    };
    match stream {
        Stream::Stdout => shell.stdout(stdio),
        Stream::Stderr => shell.stderr(stdio),
    };
    shell.env("TZ", "UTC").env_remove("PGDATA");
    shell
}

fn fixture(scenario: &str) -> String {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == scenario).unwrap();
    fixture.dir.to_str().unwrap().to_owned()
}

/// Command lines, and whether they print anything on standard output. Each says something on standard error.
fn commands(dir: &Path) -> Vec<(Vec<String>, bool)> {
    let (good, damaged) = (fixture("timeline2"), dir.join("damaged"));
    fs::create_dir(&damaged).unwrap();
    for file in fs::read_dir(fixture("workload")).unwrap().flatten() {
        fs::copy(file.path(), damaged.join(file.file_name())).unwrap();
    }
    let segment = fixtures::all().into_iter().find(|f| f.major == 15 && f.scenario == "workload").unwrap().segments().swap_remove(1);
    let segment = damaged.join(segment.file_name().unwrap());
    let mut bytes = fs::read(&segment).unwrap();
    bytes[0x2_4000 + 2000] ^= 0x11;
    fs::write(&segment, bytes).unwrap();
    fs::write(dir.join("notes"), "no names").unwrap();
    let damaged = damaged.display().to_string();
    let notes = dir.join("notes").display().to_string();
    let server = "host=/nowhere/at/all user=nobody".to_owned();
    let line = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    vec![
        (line(&["dump", &good]), true),
        (line(&["dump", &damaged]), true),
        (line(&["dump", "--format", "json", &damaged]), true),
        (line(&["dump", "--stats", &damaged]), true),
        (line(&["dump", "/nowhere"]), false),
        (line(&["dump", "--from", &server]), false),
        (line(&["dump", "--limit", "x"]), false),
        (line(&["dump", "--names", &notes, &good]), false),
        (line(&["stats", &damaged]), true),
        (line(&["stats", "--format", "json", &damaged]), true),
        (line(&["stats", "--format", "csv", "--by", "rmgr", &damaged]), true),
        (line(&["verify", "/nowhere"]), false),
        (line(&["diff", &damaged, "/nowhere"]), false),
        (line(&["names", "-D", "/nowhere"]), false),
        (line(&["doctor", "-d", &server]), false),
        (line(&["slot", "list", "-d", &server]), false),
        (line(&["receive", "-n", "-D", dir.to_str().unwrap(), "-d", &server]), false),
        (line(&["basebackup", "-D", &dir.join("none").display().to_string(), "-d", &server]), false),
        (line(&["basebackup", "--verify-only", "-D", &good]), false),
        (line(&["nonsense"]), false),
        (line(&[]), false),
    ]
}

/// Command lines that say nothing on standard error, and what they print is all.
fn quiet_commands(dir: &Path) -> Vec<Vec<String>> {
    let (good, original, damaged) = (fixture("timeline2"), fixture("workload"), dir.join("damaged").display().to_string());
    let line = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    vec![
        line(&["dump", "--limit", "1", &good]),
        line(&["dump", "--rmgr", "list"]),
        line(&["verify", &good]),
        line(&["verify", &damaged]),
        line(&["verify", "--format", "json", &damaged]),
        line(&["verify", "--reach", "latest", "--format", "junit", &damaged]),
        line(&["verify", "--reach", "latest", "--format", "sarif", &damaged]),
        line(&["diff", &good, &good]),
        line(&["diff", &original, &damaged]),
        line(&["diff", "--format", "json", &original, &damaged]),
        line(&["names", "-D", &fixtures::root().join("names/data").display().to_string()]),
        line(&["--help"]),
        line(&["--version"]),
        line(&["dump", "--help"]),
        line(&["help", "verify"]),
    ]
}

fn pgwal(args: &[String]) -> Vec<&OsStr> {
    std::iter::once(OsStr::new(env!("CARGO_BIN_EXE_pgwal"))).chain(args.iter().map(OsStr::new)).collect()
}

#[test]
fn standard_error_that_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    for (args, _) in commands(dir.path()) {
        let command = pgwal(&args);
        let heard = Command::new(command[0]).args(&command[1..]).env("TZ", "UTC").env_remove("PGDATA").output().unwrap();
        assert!(!heard.stderr.is_empty(), "{args:?}");
        assert!(heard.status.code().is_some_and(|code| code <= 2), "{args:?}: {}", heard.status);
        for broken in BROKEN {
            let unheard = with_broken(&command, Stream::Stderr, broken).output().unwrap();
            assert_eq!(unheard.status, heard.status, "{args:?}, {broken:?}");
            assert!(unheard.stdout == heard.stdout, "{args:?}, {broken:?}: other output");
        }
    }
}

#[test]
fn standard_output_that_cannot_be_written() {
    let dir = TempDir::new().unwrap();
    let commands = commands(dir.path()).into_iter().filter(|(_, prints)| *prints).map(|(args, _)| (args, false));
    let commands: Vec<_> = commands.chain(quiet_commands(dir.path()).into_iter().map(|args| (args, true))).collect();
    for (args, is_quiet) in commands {
        let full = with_broken(&pgwal(&args), Stream::Stdout, Broken::Full).output().unwrap();
        let said = String::from_utf8_lossy(&full.stderr);
        let expected = "pgwal: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!(full.status.code(), Some(2), "{args:?}: {said}");
        assert!(if is_quiet { said == expected } else { said.ends_with(expected) }, "{args:?}: {said}");
        assert_eq!(said.matches("No space left").count(), 1, "{args:?}: {said}");
        // Closed before it was started, which is no /dev/null.
        let closed = with_broken(&pgwal(&args), Stream::Stdout, Broken::Closed).output().unwrap();
        assert_eq!(closed.status.code(), Some(2), "{args:?}");
        let expected = "pgwal: cannot write to standard output: Bad file descriptor (os error 9)\n";
        assert!(String::from_utf8_lossy(&closed.stderr).ends_with(expected), "{args:?}: {}", String::from_utf8_lossy(&closed.stderr));
        let mut discarded = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        // Opened for reading, too, as Rust's runtime would open it.
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let discarded = discarded.args(&args).stdout(null).env_remove("PGDATA").output().unwrap();
        assert!(discarded.status.code().is_some_and(|code| code < 2), "{args:?}: {}", String::from_utf8_lossy(&discarded.stderr));
        // Whoever read it has seen enough; but where 0 would be an answer, it is none.
        let closed = with_broken(&pgwal(&args), Stream::Stdout, Broken::ClosedPipe).output().unwrap();
        let said = String::from_utf8_lossy(&closed.stderr);
        let is_answer = args.len() > 1 && ["verify", "diff", "doctor", "basebackup"].contains(&args[0].as_str());
        assert_eq!(closed.status.code(), Some(if is_answer { 141 } else { 0 }), "{args:?}: {said}");
        assert!(!said.contains("pipe") && (!is_quiet || said.is_empty()), "{args:?}: {said}");
    }
}

#[test]
fn nobody_reads_either() {
    let dir = TempDir::new().unwrap();
    for (args, prints) in commands(dir.path()) {
        let command = pgwal(&args);
        let heard = Command::new(command[0]).args(&command[1..]).env_remove("PGDATA").output().unwrap();
        let mut both = with_broken(&command, Stream::Stdout, Broken::Full);
        let status = both.stderr(File::options().write(true).open("/dev/full").unwrap()).status().unwrap();
        assert_eq!(status.code(), if prints { Some(2) } else { heard.status.code() }, "{args:?}");
    }
}

/// What a server does not see does not change what is received.
#[test]
fn live_commands_with_nobody_listening() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "live_commands_with_nobody_listening") else { return };
    let server = postgres.start(&["--wal-segsize=1"], "wal_level = replica\nmax_wal_senders = 10\nmax_replication_slots = 10").unwrap();
    let conninfo = format!("host={} user=postgres", server.socket().display());
    let slot = |broken: Broken| format!("{broken:?}").to_lowercase();
    for broken in BROKEN {
        server.sql(&format!("SELECT pg_create_physical_replication_slot('{}', true)", slot(broken))).unwrap();
    }
    server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i").unwrap();
    let lsn = server.sql("SELECT pg_switch_wal()").unwrap().trim().to_owned();
    let line = |args: &[&str]| args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
    let to_stdout = line(&["basebackup", "-c", "fast", "-F", "tar", "-X", "fetch", "-D", "-", "-d", &conninfo]);
    let unheard = with_broken(&pgwal(&to_stdout), Stream::Stdout, Broken::Closed).output().unwrap();
    let said = String::from_utf8_lossy(&unheard.stderr);
    assert!(unheard.status.code() == Some(2) && said.contains("standard output: Bad file descriptor"), "{said}");
    for broken in BROKEN {
        let dir = TempDir::new().unwrap();
        let (wal, backup) = (dir.path().join("wal"), dir.path().join("backup"));
        fs::create_dir(&wal).unwrap();
        let run = |args: &[&str]| {
            let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
            with_broken(&pgwal(&args), Stream::Stderr, broken).status().unwrap()
        };
        let (wal, backup) = (wal.to_str().unwrap(), backup.to_str().unwrap());
        assert_eq!(run(&["receive", "-D", wal, "-d", &conninfo, "-E", &lsn, "-S", &slot(broken)]).code(), Some(0), "{broken:?}");
        assert!(fs::read_dir(wal).unwrap().count() > 0);
        assert_eq!(run(&["basebackup", "-P", "-c", "fast", "-D", backup, "-d", &conninfo]).code(), Some(0), "{broken:?}");
        assert_eq!(run(&["basebackup", "--verify-only", "-D", backup]).code(), Some(0), "{broken:?}");
        assert!(run(&["doctor", "-d", &conninfo]).code().is_some_and(|code| code < 2), "{broken:?}");
    }
}

/// Names of files that a shell fills in may hold anything, and errors quote them.
#[test]
fn arguments_do_not_steer_the_terminal() {
    let dir = TempDir::new().unwrap();
    let hostile = ["--\x1b]0;title\x07\u{202e}", "\x1b[2J\n\u{9b}1A"];
    for args in [
        vec![hostile[0]],
        vec!["dump", hostile[0]],
        vec!["dump", hostile[1]],
        vec!["dump", "--limit", hostile[1]],
        vec!["dump", "-R", hostile[1]],
        vec!["verify", hostile[1]],
        vec!["stats", "--from", hostile[1]],
        vec!["diff", hostile[1], hostile[1]],
        vec!["names", "-D", hostile[1]],
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(&args).current_dir(dir.path()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert!(!ran.status.success() && !said.is_empty(), "{args:?}");
        let shown = said.replace('\n', "");
        assert!(!pgwal::printable::has_unprintable(&shown), "{args:?}: {said:?}");
        assert!(shown.contains("\\x1b") || shown.contains("\\u{1b}"), "{args:?}: {said:?}");
    }
}

/// How a program ended: its exit status or the signal.
fn end(status: ExitStatus) -> (Option<i32>, Option<i32>) {
    (status.code(), status.signal())
}

#[test]
fn the_drop_in_ends_as_the_real_program_does() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "the_drop_in_ends_as_the_real_program_does") else { return };
    let dir = TempDir::new().unwrap();
    let own = dir.path().join("pg_waldump");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pgwal"), &own).unwrap();
    let real = postgres.program("pg_waldump");
    let segments = fixtures::all().into_iter().find(|f| f.major == 15 && f.scenario == "workload").unwrap().segments();
    let segment = segments[0].to_str().unwrap();
    for args in [
        &[segment][..],
        &["-n", "3", segment],
        &["-z", segment],
        &["-q", segment],
        &["--help"],
        &["--version"],
        &["-r", "list"],
        &["/nowhere"],
        &["--nonsense"],
        &["-n", "x", segment],
        &[],
    ] {
        for stream in [Stream::Stdout, Stream::Stderr] {
            for broken in BROKEN {
                let run = |program: &Path| {
                    let command: Vec<&OsStr> = std::iter::once(program.as_os_str()).chain(args.iter().map(OsStr::new)).collect();
                    with_broken(&command, stream, broken).env("LC_ALL", "C").output().unwrap()
                };
                let (ours, theirs) = (run(&own), run(&real));
                let what = format!("{args:?}, {stream:?} {broken:?}");
                assert_eq!(end(ours.status), end(theirs.status), "{what}: {}", String::from_utf8_lossy(&ours.stderr));
                let said = String::from_utf8_lossy(&ours.stderr);
                let warning = "pg_waldump: warning: could not write to standard output: No space left on device\n";
                let rest = said.replace(warning, "").replace(own.to_str().unwrap(), real.to_str().unwrap());
                assert_eq!(rest, String::from_utf8_lossy(&theirs.stderr), "{what}");
            }
        }
    }
    // It is not silent about what is lost, and what else was asked for is done.
    let ran = with_broken(&[own.as_os_str(), OsStr::new("-n3"), OsStr::from_bytes(segment.as_bytes())], Stream::Stdout, Broken::Full)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&ran.stderr).contains("warning: could not write to standard output"));
    let saved = dir.path().join("saved");
    let mut command = Command::new(&own);
    command.arg0("pg_waldump").arg(format!("--save-fullpage={}", saved.display())).arg(segment);
    let status = command.stdout(File::options().write(true).open("/dev/full").unwrap()).stderr(Stdio::null()).status().unwrap();
    assert!(status.code().is_some() && fs::read_dir(&saved).unwrap().count() > 3, "{status}");
}

/// The program is called pgwal wherever it names itself, whatever file it lies in.
#[test]
fn the_program_names_itself() {
    let dir = TempDir::new().unwrap();
    let program = dir.path().join("another-name");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pgwal"), &program).unwrap();
    let run = |args: &[&str]| {
        let ran = Command::new(&program).args(args).output().unwrap();
        String::from_utf8([ran.stdout, ran.stderr].concat()).unwrap()
    };
    let help = run(&["--help"]);
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert!(commands.contains(&"verify") && commands.contains(&"slot") && commands.len() > 8, "{help}");
    let mut all: Vec<Vec<&str>> = commands.iter().map(|command| vec![*command]).collect();
    all.extend([vec![], vec!["slot", "list"], vec!["slot", "create"], vec!["slot", "drop"]]);
    for command in all {
        for more in [&["--help"][..], &["-?"], &["--version"], &["--no-such-option"], &["--no-such-option=x", "a", "b"], &[]] {
            let said = run(&[command.as_slice(), more].concat());
            assert!(!said.contains("pgwal-cli") && !said.contains("another-name"), "{command:?} {more:?}: {said}");
            let mut usages = said.lines().filter_map(|line| line.strip_prefix("Usage: "));
            assert!(usages.all(|usage| usage.starts_with("pgwal ")), "{command:?} {more:?}: {said}");
        }
    }
    // What is found to be wrong later.
    for args in [&["dump", "--start", "0/2", "--end", "0/1", "x"][..], &["basebackup", "-D", "x", "--target", "server:/x"]] {
        let said = run(args);
        assert!(!said.contains("pgwal-cli") && !said.contains("another-name"), "{args:?}: {said}");
    }
}
