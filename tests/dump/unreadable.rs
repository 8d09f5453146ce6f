//! What has the name of a file and cannot be read as one: a segment of the newest timeline hides that of an older one all the same, and
//! nothing waits for what a pipe may bring.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use pgwal_testkit::fixtures;
use tempfile::TempDir;

use crate::inputs::{packed, workload};
use crate::{Ran, dump, run};

/// Three segments: the last two on timeline 1 and again on timeline 2, which forked off in the second.
fn two_timelines() -> (TempDir, [String; 2]) {
    let dir = TempDir::new().unwrap();
    let mut newer = Vec::new();
    for (number, (name, bytes)) in workload().0.into_iter().take(3).enumerate() {
        fs::write(dir.path().join(&name), &bytes).unwrap();
        if number > 0 {
            let name = format!("00000002{}", &name[8..]);
            fs::write(dir.path().join(&name), &bytes).unwrap();
            newer.push(name);
        }
    }
    (dir, newer.try_into().unwrap())
}

/// Runs `pgwal`, which must not wait for anything.
fn pgwal(dir: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new("timeout");
    command.args(["60", env!("CARGO_BIN_EXE_pgwal")]).args(args).current_dir(dir).stdin(Stdio::null()).env_remove("PGDATA");
    let ran = run(&mut command);
    assert_ne!(ran.status, 124, "{args:?} waits");
    ran
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_segment_of_the_newest_timeline_is_not_passed_over() {
    let (dir, [newer, last]) = two_timelines();
    let dir = dir.path();
    let whole = run(&mut dump(dir, ["."]));
    let first = run(&mut dump(dir, ["-e", &format!("0/{}00000", &newer[22..]), "."]));
    assert!(whole.status == 0 && whole.stdout.len() > first.stdout.len() + 1000 && !first.stdout.is_empty(), "{}", whole.stderr);
    let path = dir.join(&newer);
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    let socket = |path: &Path| drop(UnixListener::bind(path).unwrap());
    type Put<'a> = (&'a dyn Fn(&Path), &'a str);
    let put: [Put<'_>; 6] = [
        (&|path| symlink("gone\x1b", path).unwrap(), "a dangling symbolic link: gone\\x1b does not exist"),
        (&|path| fs::create_dir(path).unwrap(), "a directory"),
        (&|path| mkfifo(path), "a named pipe"),
        (&socket, "a socket"),
        (&|path| symlink("/dev/zero", path).unwrap(), "a device"),
        (&|path| symlink(path, path).unwrap(), "cannot be opened: Too many levels of symbolic links (os error 40)"),
    ];
    for (put, what) in put {
        put(&path);
        let says = format!("./{newer}: {what}");
        let ran = pgwal(dir, &["dump", "."]);
        assert_eq!((ran.status, ran.stderr), (1, format!("pgwal: {says}\n")));
        assert!(whole.stdout.starts_with(&ran.stdout) && ran.stdout.len() <= first.stdout.len(), "{what}");
        for args in [&["stats", "."][..], &["dump", "--stats", "."], &["stats", "--by", "rmgr", "--format", "json", "."]] {
            let ran = pgwal(dir, args);
            assert!(ran.status == 1 && ran.stderr.contains(&says), "{args:?}: {} {}", ran.status, ran.stderr);
        }
        let ran = pgwal(dir, &["diff", "--timelines", "1,2", "."]);
        let out = String::from_utf8(ran.stdout).unwrap();
        assert!(ran.status == 1 && out.contains(&says) && out.contains("the same but for damage of B"), "{} {out}", ran.stderr);
        // Who wants the older timeline gets it.
        let ran = pgwal(dir, &["dump", "-t", "1", "."]);
        assert_eq!((ran.status, &ran.stdout), (0, &whole.stdout), "{}", ran.stderr);
        // A file of the same segment is as good.
        fs::write(dir.join(format!("{newer}.gz")), packed("gzip", &bytes)).unwrap();
        let ran = pgwal(dir, &["dump", "."]);
        assert_eq!((ran.status, &ran.stdout), (0, &whole.stdout), "{}", ran.stderr);
        fs::remove_file(dir.join(format!("{newer}.gz"))).unwrap();
        if path.is_dir() { fs::remove_dir(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
    // In an archive.
    fs::remove_file(dir.join(&last)).unwrap();
    let segments = workload().0;
    let archive = |kind: tar::EntryType| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, bytes) in segments.iter().take(3) {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            tar.append_data(&mut header, name, &bytes[..]).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(0);
        if kind.is_symlink() || kind.is_hard_link() {
            tar.append_link(&mut header, &newer, "elsewhere\x1b").unwrap();
        } else {
            tar.append_data(&mut header, &newer, &[][..]).unwrap();
        }
        tar.into_inner().unwrap()
    };
    let link = "a link to elsewhere\\x1b, which is not followed inside an archive";
    for (kind, what) in [
        (tar::EntryType::Symlink, link),
        (tar::EntryType::Link, link),
        (tar::EntryType::Directory, "a directory"),
        (tar::EntryType::Fifo, "a named pipe"),
        (tar::EntryType::Char, "a device"),
    ] {
        fs::write(dir.join("a.tar"), archive(kind)).unwrap();
        fs::write(dir.join("a.tar.gz"), packed("gzip", &archive(kind))).unwrap();
        for file in ["a.tar", "a.tar.gz"] {
            let ran = pgwal(dir, &["dump", file]);
            assert_eq!((ran.status, ran.stderr), (1, format!("pgwal: {file}:{newer}: {what}\n")));
            assert!(whole.stdout.starts_with(&ran.stdout) && ran.stdout.len() <= first.stdout.len(), "{what}");
            let ran = pgwal(dir, &["verify", file]);
            let out = String::from_utf8(ran.stdout).unwrap();
            let line = out.lines().find(|line| line.starts_with(&format!("{file}:{newer} "))).unwrap_or_default();
            assert!(ran.status == 1 && line.contains(&format!(": not a file: {what}. ")), "{out}");
        }
    }
}

/// No side file is waited for: each is refused, or told as what it is.
#[test]
fn nothing_waits_for_a_pipe() {
    let (dir, [newer, _]) = two_timelines();
    let dir = dir.path();
    for name in ["pipe", "00000002.history", "backup_label"] {
        mkfifo(&dir.join(name));
    }
    let label = format!("{}.00000028.backup", &newer);
    mkfifo(&dir.join(&label));
    let pipe = "not a regular file: a named pipe";
    for (args, status, says) in [
        (&["dump", "-q", "--names", "pipe", "."][..], 1, format!("pgwal: pipe: {pipe}\n")),
        (&["stats", "--names", "pipe", "."], 1, format!("pgwal: pipe: {pipe}\n")),
        (&["dump", "-q", "--names", "/dev/zero", "."], 1, "pgwal: /dev/zero: not a regular file: a device\n".to_owned()),
        (&["verify", "--state", "pipe", "."], 2, format!("pgwal: pipe: {pipe}\n")),
        (&["diff", "--timelines", "1,2", "."], 0, String::new()),
        (&["dump", "-q", "."], 0, String::new()),
        (&["dump", "-q", "pipe"], 1, "pgwal: pipe: neither a file nor a directory".to_owned()),
    ] {
        let ran = pgwal(dir, args);
        assert!(ran.status == status && ran.stderr.starts_with(&says), "{args:?}: {} {}", ran.status, ran.stderr);
    }
    let ran = pgwal(dir, &["verify", "."]);
    let out = String::from_utf8(ran.stdout).unwrap();
    for name in ["00000002.history", "backup_label", &label] {
        let line = out.lines().find(|line| line.starts_with(&format!("./{name}: "))).unwrap_or_default();
        assert!(line.contains(": unreadable: a named pipe"), "{name}: {out}{}", ran.stderr);
    }
    // As a shell makes them of a pattern.
    let ran = pgwal(dir, &["verify", "--reach", "latest", &newer, "00000002.history", &label]);
    let out = String::from_utf8(ran.stdout).unwrap();
    // The status is that of the answer: a server takes a timeline without a history file for one without a past.
    assert!(ran.status == 0 && out.contains(&format!("00000002.history: unreadable: {pipe}")), "{out}{}", ran.stderr);
    let ran = pgwal(dir, &["verify", "--reach", "latest", "--from-backup", "pipe", "."]);
    assert!(ran.status == 2 && ran.stderr.starts_with("pgwal: pipe: "), "{} {}", ran.status, ran.stderr);
    // Where timelines part is in a history file.
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "timeline2").unwrap();
    let unpacked = fixture.unpacked();
    fs::remove_file(unpacked.path().join("00000002.history")).unwrap();
    mkfifo(&unpacked.path().join("00000002.history"));
    let ran = pgwal(unpacked.path(), &["diff", "--summary", "--timelines", "1,2", "."]);
    let out = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.status == 1 && out.contains("./00000002.history") && out.contains(pipe), "{out}");
    // A data directory whose files are pipes.
    for name in ["base/1/1259", "global/pg_control", "global/pg_filenode.map", "pg_wal/00000002.history"] {
        fs::create_dir_all(dir.join("data").join(name).parent().unwrap()).unwrap();
        mkfifo(&dir.join("data").join(name));
    }
    fs::write(dir.join("data/PG_VERSION"), "15\n").unwrap();
    let segment = workload().0.swap_remove(0);
    fs::write(dir.join("data/pg_wal").join(&segment.0), &segment.1).unwrap();
    let ran = pgwal(dir, &["names", "--data-dir", "data"]);
    assert!(ran.status != 0 && ran.stderr.contains(&format!("global/pg_control: {pipe}")), "{} {}", ran.status, ran.stderr);
    let ran = pgwal(dir, &["dump", "-q", "data"]);
    assert_eq!((ran.status, ran.stdout), (0, vec![]), "{}", ran.stderr);
}

/// A pipe that the shell has connected is read: `--names <(command)`, `--names /dev/stdin`.
#[test]
fn names_come_through_a_pipe() {
    let (dir, _) = two_timelines();
    let names = "{\"pgwal_names\": 1, \"databases\": {\"5\": \"shop\"}}";
    let expected = {
        fs::write(dir.path().join("names.json"), names).unwrap();
        pgwal(dir.path(), &["stats", "--by", "database", "--names", "names.json", "."])
    };
    assert_eq!(expected.status, 0, "{}", expected.stderr);
    let mut command = dump(dir.path(), [""; 0]);
    let mut child = Command::new(command.get_program());
    child.args(["stats", "--by", "database", "--names", "/dev/stdin", "."]).current_dir(dir.path());
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        // In two parts: what has not come yet is waited for.
        let (first, second) = names.split_at(20);
        stdin.write_all(first.as_bytes()).and_then(|()| stdin.flush()).unwrap();
        std::thread::yield_now();
        stdin.write_all(second.as_bytes()).unwrap();
    });
    let ran: Ran = child.wait_with_output().unwrap().into();
    writer.join().unwrap();
    assert_eq!(ran, expected);
    if Command::new("bash").arg("--version").output().is_ok_and(|output| output.status.success()) {
        let script = "\"$0\" stats --by database --names <(cat names.json) .";
        command = Command::new("bash");
        command.args(["-c", script, env!("CARGO_BIN_EXE_pgwal")]).current_dir(dir.path()).stdin(Stdio::null());
        assert_eq!(run(&mut command), expected);
    }
}
