//! Sets of files that are made to cost, or that are no files at all: time and memory stay bounded, nothing blocks, and each is named.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pgwal::{Lsn, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};
use tempfile::TempDir;

use crate::{copy, verify};

/// What is far above what a busy machine takes, and far below what time takes that grows with the square of the input.
const PATIENCE: Duration = Duration::from_secs(100);

/// What a command may have of memory, in kB.
const LIMIT: u64 = 256 << 10;

/// Runs `pgwal` where it may have 256 MiB of address space: status and output.
#[track_caller]
fn limited(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let script = "ulimit -v 262144; exec \"$0\" \"$@\"";
    let started = Instant::now();
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_pgwal")]).args(args).current_dir(dir).stdin(Stdio::null());
    let output = command.env_remove("PGDATA").env("MALLOC_ARENA_MAX", "2").output().unwrap();
    let took = started.elapsed();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    let shown: String = err.chars().take(500).collect();
    assert!(output.status.code().is_some() && took < PATIENCE, "{args:?}: {}, {took:?}: {shown}", output.status);
    (output.status.code().unwrap(), out, err)
}

/// The first segment of a fixture, and its name.
fn segment() -> (String, Vec<u8>) {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "workload").unwrap();
    let path = fixture.segments().swap_remove(0);
    (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
}

/// Waits for the end of a run: its status, and its highest resident size in kB.
fn peak(child: &mut Child) -> (Option<i32>, u64) {
    let path = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    loop {
        let text = fs::read_to_string(&path).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        peak = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            return (status.code(), peak);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A member of a tar.
fn member(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).unwrap();
    header.set_mode(0o600);
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let mut out = [header.as_bytes(), bytes].concat();
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

#[test]
fn what_is_not_a_file() {
    let (dir, files) = copy(15, "workload");
    let at = |name: &str| dir.path().join(name);
    let next = |n: u8| format!("00000001000000000000002{n}");
    assert!(files.iter().all(|file| file.file_name().unwrap().to_str().unwrap() < next(7).as_str()));
    symlink("nowhere\x1b[31m", at(&next(7))).unwrap();
    fs::create_dir(at(&next(8))).unwrap();
    assert!(Command::new("mkfifo").arg(at(&next(9))).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("00000001000000000000002A")).unwrap();
    symlink("00000001000000000000002B", at("00000001000000000000002B")).unwrap();
    symlink("/dev/null", at("00000001000000000000002C")).unwrap();
    symlink("gone", at("00000002.history")).unwrap();
    fs::create_dir(at("00000003.history")).unwrap();
    symlink("gone", at("something")).unwrap();
    let run = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(args).current_dir(dir.path()).stdin(Stdio::null()).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, out, err) = run(&["verify", "."]);
    assert_eq!((status, err.as_str()), (Some(1), ""), "{out}");
    for (name, what) in [
        (next(7).as_str(), "not a file: a dangling symbolic link: nowhere\\x1b[31m does not exist. "),
        (&next(8), "not a file: a directory. "),
        (&next(9), "not a file: a named pipe. "),
        ("00000001000000000000002A", "not a file: a socket. "),
        ("00000001000000000000002B", "unreadable: Too many levels of symbolic links (os error 40). "),
        ("00000001000000000000002C", "not a file: a device. "),
        ("00000002.history", "unreadable: a dangling symbolic link: gone does not exist. "),
        ("00000003.history", "unreadable: a directory. "),
    ] {
        let line = out.lines().find(|line| line.starts_with(&format!("./{name}"))).unwrap_or_else(|| panic!("{name}: {out}"));
        assert!(line.contains(what), "{line}");
    }
    assert!(out.ends_with(": 8 findings.\n"), "{out}");
    let (_, out, _) = run(&["verify", "--format", "json", "."]);
    let found: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let classes: Vec<&str> = found.iter().filter_map(|line| line["found"].as_str()).collect();
    assert_eq!(classes, ["dangling_link", "directory", "pipe", "socket", "device"]);
    assert!(found.iter().filter(|line| line["found"].is_string()).all(|line| line["class"] == "not_a_file"));
    // By name.
    for (name, what) in [(next(7).as_str(), "a dangling symbolic link: "), (&next(9), "neither a file nor a directory")] {
        let (status, _, err) = run(&["verify", name]);
        assert!(status == Some(2) && err.contains(what), "{err}");
    }
    // Whoever reads WAL in its order comes to the first of them, and says why it goes no further.
    let says = format!("pgwal: ./{}: a dangling symbolic link: nowhere\\x1b[31m does not exist\n", next(7));
    assert_eq!(run(&["dump", "-q", "."]), (Some(1), String::new(), says));
}

#[test]
fn a_hundred_thousand_fresh_damaged_files() {
    // Whole WAL comes behind them, so that they are no leftovers.
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(15) }).starting_at(Lsn(100 << 32));
    while wal.end() < wal.start() + (1 << 20) {
        wal.record(&RecordBuilder::filler(50_000));
    }
    let dir = TempDir::new().unwrap();
    for (name, bytes) in wal.segments().into_iter().take(1) {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    for n in 0..100_000 {
        fs::write(dir.path().join(format!("00000001{:08X}{:08X}", 1 + n / 4096, n % 4096)), "damaged").unwrap();
    }
    let (status, out, _) = limited(dir.path(), &["verify", "--threads", "1", "."]);
    assert_eq!(status, 1);
    // Told in runs of consecutive segments.
    let files = |line: &str| line.split_once(" files").and_then(|(front, _)| front.rsplit(' ').next()?.parse().ok()).unwrap_or(1);
    assert_eq!(out.lines().filter(|line| line.contains("not WAL that can be checked")).map(files).sum::<usize>(), 100_000);
}

/// Findings are written one after the other, in reports too, and a state keeps none.
#[test]
fn hundreds_of_thousands_of_findings() {
    // Every record is malformed: its checksum is right, its resource manager's payload is not.
    let dir = TempDir::new().unwrap();
    let mut wal = Wal::new(WalFormat { segment_size: 16 * MIB, ..WalFormat::new(15) });
    while wal.end() < wal.start() + (15 << 20) {
        wal.record(&RecordBuilder::new(pgwal::RmgrId::XACT, 0x00).xid(7).main(b"short"));
    }
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    let state = dir.path().join("state");
    let state = state.to_str().unwrap();
    for args in [&["--state", state][..], &["--format", "junit"], &["--format", "sarif"]] {
        let stdout = dir.path().join("out");
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        command.args(["verify", "--threads", "1"]).args(args).arg(".").current_dir(dir.path()).stdin(Stdio::null());
        let started = Instant::now();
        let (status, peak) = peak(&mut command.stdout(File::create(&stdout).unwrap()).stderr(Stdio::null()).spawn().unwrap());
        let found = {
            use std::io::BufRead;
            let lines = std::io::BufReader::new(File::open(&stdout).unwrap()).lines();
            lines.filter(|line| line.as_ref().unwrap().contains("malformed: ")).count()
        };
        assert!(status == Some(1) && found >= 300_000, "{args:?}: {status:?}, {found}");
        assert!(peak > 0 && peak < LIMIT && started.elapsed() < PATIENCE, "{args:?}: {peak} kB, {:?}", started.elapsed());
    }
}

#[test]
fn many_members_of_an_archive() {
    let (name, good) = segment();
    let dir = TempDir::new().unwrap();
    type Other = fn(u32) -> (String, &'static [u8]);
    let others: [(&str, Other); 5] = [
        ("other files", |n| (format!("base/5/{n}"), b"tiny")),
        ("segments", |n| (format!("000000010000000{}{n:08X}", 1), b"tiny")),
        ("segments of one name", |_| ("00000001000000010000000A".to_owned(), b"tiny")),
        // A timeline that lasts until a later segment of an older one, over and over.
        ("timelines", |n| (format!("{:08X}00000001{:08X}", 400_000 - n, n % 4096), b"tiny")),
        ("history files", |n| (format!("{:08X}.history", n + 2), b"1\t0/2410000\tno recovery target specified\n")),
    ];
    for (what, other) in others {
        let path = dir.path().join("a.tar");
        let mut archive = std::io::BufWriter::new(File::create(&path).unwrap());
        archive.write_all(&member(&name, &good)).unwrap();
        // Each timeline has an end, and a gap before it.
        for n in 0..300_000 {
            let (name, bytes) = other(n);
            archive.write_all(&member(&name, bytes)).unwrap();
        }
        archive.write_all(&[0; 1024]).unwrap();
        drop(archive);
        let (stdout, started) = (dir.path().join("out"), Instant::now());
        let run = |args: &[&str]| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
            command.args(args).current_dir(dir.path()).stdin(Stdio::null());
            peak(&mut command.stdout(File::create(&stdout).unwrap()).stderr(Stdio::null()).spawn().unwrap())
        };
        let more: &[&[&str]] = if what == "timelines" { &[&["verify", "--reach", "latest", "a.tar"]] } else { &[] };
        for args in [&["dump", "-q", "a.tar"][..], &["stats", "a.tar"], &["diff", "--summary", "a.tar", "a.tar"]].iter().chain(more) {
            let (status, peak) = run(args);
            assert!(status.is_some_and(|status| status < 2) && peak > 0 && peak < LIMIT, "{what}, {args:?}: {status:?}, {peak} kB");
        }
        let (status, peak) = run(&["verify", "--threads", "1", "a.tar"]);
        let out = fs::read_to_string(stdout).unwrap();
        let last = out.lines().last().unwrap_or_default();
        assert!(status == Some(i32::from(what != "other files")) && last.starts_with("Checked "), "{what}: {status:?}: {last}");
        assert!(peak > 0 && peak < LIMIT, "{what}: {peak} kB");
        assert!(started.elapsed() < PATIENCE, "{what}: {:?}", started.elapsed());
    }
}

#[test]
fn texts_of_gigabytes() {
    let (name, good) = segment();
    let dir = TempDir::new().unwrap();
    let huge = |file: &str, front: &str| {
        let mut file = File::create(dir.path().join(file)).unwrap();
        file.write_all(front.as_bytes()).unwrap();
        file.seek(SeekFrom::Start(3 << 30)).unwrap();
        file.write_all(b"\n").unwrap();
    };
    fs::write(dir.path().join(&name), &good).unwrap();
    let label = format!("START WAL LOCATION: 0/2400028 (file {name})\n");
    huge("00000002.history", "1\t0/2410000\tno recovery target specified\n");
    huge("backup_label", &label);
    huge(&format!("{name}.00000028.backup"), &label);
    huge("names.json", "{\"pgwal_names\": 1, \"tablespaces\": {\"1\": \"");
    let (status, out, err) = limited(dir.path(), &["verify", "--threads", "1", "."]);
    assert!(status == 1 && err.is_empty() && out.len() < 10_000, "{}", out.len());
    let (status, _, err) = limited(dir.path(), &["verify", "--threads", "1", "--reach", "latest", "--from-backup", "backup_label", "."]);
    assert!(status == 2 && err.contains("longer than a backup label"), "{err}");
    let (status, _, err) = limited(dir.path(), &["dump", "-q", "--threads", "1", "--names", "names.json", &name]);
    assert!(status != 0 && err.starts_with("pgwal: names.json: ") && err.len() < 1000, "{err}");
    let long = format!("{{\"pgwal_names\": 1, \"tablespaces\": {{\"1\": \"{}\"}}}}", "x".repeat(100_000));
    fs::write(dir.path().join("names.json"), long).unwrap();
    let (status, _, err) = limited(dir.path(), &["dump", "-q", "--threads", "1", "--names", "names.json", &name]);
    assert!(status != 0 && err.contains("a string of more than 64 kB, which is no name"), "{err}");
}

/// An archive that is cut short is still cut short when nothing of it has changed.
#[test]
fn a_state_does_not_hide_the_rest_of_an_archive() {
    let (name, good) = segment();
    let dir = TempDir::new().unwrap();
    let archive = [member(&name, &good), vec![b'x'; 512]].concat();
    fs::write(dir.path().join("a.tar"), archive).unwrap();
    for _ in 0..2 {
        let (status, out, _) = verify(dir.path(), ["--state", "state", "a.tar"]);
        assert!(status == 1 && out.contains("a.tar: unreadable: does not unpack: "), "{out}");
    }
}

/// Names of files steer no terminal, wherever they are shown.
#[test]
fn names_of_files_are_shown_without_control_characters() {
    let (name, mut bytes) = segment();
    let top = TempDir::new().unwrap();
    let hostile = top.path().join(OsStr::from_bytes("a\x1b[2J\u{9b}1A\u{202e}\n".as_bytes()));
    fs::create_dir(&hostile).unwrap();
    fs::write(hostile.join(&name), &bytes).unwrap();
    bytes[0x4123] ^= 4;
    let other = top.path().join("b\x07");
    fs::create_dir(&other).unwrap();
    fs::write(other.join(&name), &bytes).unwrap();
    fs::write(other.join("00000002.history"), "\x1b[31m\n").unwrap();
    let (a, b) = (hostile.to_str().unwrap(), other.to_str().unwrap());
    let empty = top.path().join("c\x1b]0;");
    fs::create_dir(&empty).unwrap();
    let none = format!("{a}/none");
    for args in [
        &["verify", a][..],
        &["verify", b],
        &["verify", "--reach", "latest", b],
        &["verify", &none],
        &["verify", "--state", a, b],
        &["verify", "--format", "json", b],
        &["verify", "--format", "json", a],
        &["verify", "--format", "junit", b],
        &["verify", "--format", "sarif", a],
        &["verify", "--reach", "latest", "--format", "json", a],
        &["diff", "--format", "json", a, b],
        &["dump", "--format", "json", "--limit", "9", b],
        &["stats", "--format", "json", b],
        &["diff", a, b],
        &["diff", "--summary", b, a],
        &["diff", a, &none],
        &["dump", "-q", b],
        &["dump", &none],
        &["dump", empty.to_str().unwrap()],
        &["dump", "--names", &none, a],
        &["stats", b],
        &["stats", &none],
        &["names", "-D", a],
        &["names", "-D", a, "-o", &none],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(args).stdin(Stdio::null()).output().unwrap();
        for bytes in [output.stdout, output.stderr] {
            let text = String::from_utf8(bytes).unwrap();
            let bad = text.lines().find(|line| pgwal::printable::has_unprintable(line));
            assert_eq!(bad, None, "{args:?}");
            assert!(!text.lines().any(|line| line.starts_with('/')) || text.starts_with('/'), "{args:?}: {text}");
        }
    }
}
