//! `--state FILE`: what it is written over, what it is for, and what is skipped because of it.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use tempfile::TempDir;

use crate::{copy, damage, verify};

/// An archive of three segments, and a place for state files.
fn setup() -> (TempDir, Vec<PathBuf>, TempDir) {
    let (dir, files) = copy(15, "workload");
    (dir, files, TempDir::new().unwrap())
}

/// Verifies the archive in `dir` with a state file: status, output, and errors without the place of the state file.
fn run(dir: &Path, state: &Path, more: &[&str]) -> (i32, String, String) {
    let mut args = vec!["--state", state.to_str().unwrap()];
    args.extend_from_slice(if more.is_empty() { &["."] } else { more });
    let (status, out, err) = verify(dir, args);
    (status, out, err.replace(&format!("{}/", state.parent().unwrap().display()), ""))
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_is_no_state_file_stays() {
    let (dir, files, home) = setup();
    let at = |name: &str| home.path().join(name);
    let segment = fs::read(&files[0]).unwrap();
    for (name, content) in [
        ("segment", &segment[..]),
        ("notes", b"pgwal state of affairs: 2 to be done\n"),
        ("notes2", b"pgwal state 7 is what we want\n"),
        ("prefix", b"pgwal stat"),
        ("empty", b""),
        ("json", b"{}\n"),
    ] {
        fs::write(at(name), content).unwrap();
        let inode = at(name).metadata().unwrap().ino();
        let (status, out, err) = run(dir.path(), &at(name), &[]);
        let expected = format!("pgwal: {name}: not a state file of pgwal verify: name another one, or remove it\n");
        assert_eq!((status, out.as_str(), err), (2, "", expected));
        assert!(fs::read(at(name)).unwrap() == content && at(name).metadata().unwrap().ino() == inode, "{name}");
        symlink(name, at("link")).unwrap();
        assert_eq!(run(dir.path(), &at("link"), &[]).0, 2, "link to {name}");
        assert!(fs::read(at(name)).unwrap() == content && at("link").symlink_metadata().unwrap().is_symlink(), "{name}");
        fs::remove_file(at("link")).unwrap();
    }
    // The archive's own files, whether they are there or not.
    for name in ["000000010000000000000024", "000000010000000000000099", "000000010000000000000099.partial", "00000009.history"] {
        let before = names(dir.path());
        let (status, out, err) = run(dir.path(), &dir.path().join(name), &[]);
        assert!(status == 2 && out.is_empty() && err.contains("cannot have the name of a WAL file"), "{name}: {err}");
        assert_eq!(names(dir.path()), before);
    }
    // What is no file at all; nothing waits for a pipe.
    fs::create_dir(at("dir")).unwrap();
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    symlink("/dev/null", at("null")).unwrap();
    for name in ["dir", "fifo", "socket", "null", "none/state"] {
        let (status, out, err) = run(dir.path(), &at(name), &[]);
        assert!(status == 2 && out.is_empty() && !err.is_empty(), "{name}: {err}");
    }
    assert!(Path::new("/dev/null").metadata().unwrap().file_type().is_char_device());
    assert!(at("fifo").metadata().unwrap().file_type().is_fifo() && at("dir").is_dir());
    assert!(names(home.path()).iter().all(|name| !name.starts_with('.')), "{:?}", names(home.path()));
}

#[test]
fn what_is_skipped_is_the_same_file() {
    let (dir, files, home) = setup();
    let state = home.path().join("state");
    let all = |what: &str| {
        assert_eq!(run(dir.path(), &state, &[]).0, 0, "{what}");
        let (_, out, err) = run(dir.path(), &state, &[]);
        assert!(out.starts_with("3 segments unchanged and not read again.\n") && err.is_empty(), "{what}: {out}");
    };
    // A bit turns, and size and time are made to look as they did.
    all("at first");
    let good = fs::read(&files[2]).unwrap();
    let modified = files[2].metadata().unwrap().modified().unwrap();
    let put_back = |path: &Path, time: SystemTime| fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
    damage(&files[2], |bytes| bytes[0x4123] ^= 4);
    put_back(&files[2], modified);
    let (status, out, _) = run(dir.path(), &state, &[]);
    assert!(status == 1 && out.contains("bit flip") && out.contains("1 segment unchanged"), "{out}");
    // Another file takes its place, of the same size and time.
    fs::write(&files[2], &good).unwrap();
    all("repaired");
    let other = dir.path().join("other");
    fs::copy(&files[2], &other).unwrap();
    damage(&other, |bytes| bytes[0x4123] ^= 4);
    put_back(&other, modified);
    fs::rename(&other, &files[2]).unwrap();
    let (status, out, _) = run(dir.path(), &state, &[]);
    assert!(status == 1 && out.contains("bit flip"), "{out}");
    // A link that leads elsewhere.
    let (good_file, bad_file) = (home.path().join("good"), home.path().join("bad"));
    fs::rename(&files[2], &bad_file).unwrap();
    fs::write(&good_file, &good).unwrap();
    put_back(&good_file, modified);
    symlink(&good_file, &files[2]).unwrap();
    all("by a link");
    fs::remove_file(&files[2]).unwrap();
    symlink(&bad_file, &files[2]).unwrap();
    let (status, out, _) = run(dir.path(), &state, &[]);
    assert!(status == 1 && out.contains("bit flip"), "{out}");
}

#[test]
fn a_state_is_for_one_place_and_one_question() {
    let (dir, files, home) = setup();
    let state = home.path().join("state");
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    // The same place under other names.
    let absolute = dir.path().to_str().unwrap();
    for names in [&[absolute][..], &["./."], &["."]] {
        let (status, out, err) = run(dir.path(), &state, names);
        assert!(status == 0 && err.is_empty() && out.starts_with("3 segments unchanged"), "{names:?}: {out}{err}");
    }
    // Another question.
    let (status, out, err) = run(dir.path(), &state, &["--system-identifier", "1", "."]);
    assert_eq!((status, err.as_str()), (1, "pgwal: state: a state file of a run with other options: everything is read\n"));
    assert!(!out.contains("unchanged"), "{out}");
    let (status, out, err) = run(dir.path(), &state, &[]);
    assert!(status == 0 && err.contains("other options") && !out.contains("unchanged"), "{out}{err}");
    // A copy of it elsewhere, and the same archive under a new name.
    let (elsewhere, copies) = copy(15, "workload");
    damage(&copies[1], |bytes| bytes[0x4123] ^= 4);
    let (status, out, err) = run(elsewhere.path(), &state, &[]);
    let place = fs::canonicalize(dir.path()).unwrap();
    assert_eq!((status, err), (1, format!("pgwal: state: a state file of {}: everything is read\n", place.display())));
    assert!(out.contains("bit flip") && !out.contains("unchanged"), "{out}");
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    let moved = home.path().join("moved");
    fs::rename(dir.path(), &moved).unwrap();
    let (status, out, err) = run(&moved, &state, &[]);
    assert!(status == 0 && err.contains("a state file of ") && !out.contains("unchanged"), "{out}{err}");
    assert_eq!(files.len(), 3);
}

#[test]
fn states_of_other_versions_and_damaged_ones_are_replaced() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    let good = fs::read_to_string(&state).unwrap();
    let (head, body) = good.split_once('\n').unwrap();
    for (what, content) in [
        ("a state file of version 1, where 2 is needed", "pgwal state 1 0123ABCD\n{}".to_owned()),
        ("a state file of version 3, where 2 is needed", "pgwal state 3\nsomething".to_owned()),
        ("a damaged state file", good[..good.len() - 1].to_owned()),
        ("a damaged state file", format!("{head}\n")),
        ("a damaged state file", format!("{head}\n{}", body.replacen('1', "2", 1))),
        ("a damaged state file", format!("{good} ")),
    ] {
        fs::write(&state, content).unwrap();
        let (status, out, err) = run(dir.path(), &state, &[]);
        assert_eq!((status, err), (0, format!("pgwal: state: {what}: everything is read\n")));
        assert!(!out.contains("unchanged"), "{out}");
        assert_eq!(without_times(&fs::read_to_string(&state).unwrap()), without_times(&good));
    }
}

/// What a state file says, without the times at which the segments were read.
fn without_times(state: &str) -> serde_json::Value {
    let mut state: serde_json::Value = serde_json::from_str(state.split_once('\n').unwrap().1).unwrap();
    let segments = state["segments"].as_object_mut().unwrap();
    assert!(!segments.is_empty());
    for segment in segments.values_mut() {
        assert!(segment.as_object_mut().unwrap().remove("read").is_some());
    }
    state
}

/// A file of gigabytes that begins as ours does costs no memory, and neither does one that has the right sum.
#[test]
fn a_huge_state_file() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    fs::write(&state, "pgwal state 2 00000000\n").unwrap();
    fs::File::options().write(true).open(&state).unwrap().set_len(3 << 30).unwrap();
    let script = "ulimit -v 262144; exec \"$0\" verify --threads 1 --state \"$1\" .";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_pgwal")]).arg(&state).current_dir(dir.path()).stdin(Stdio::null());
    let ran = command.output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(0) && said.contains("a damaged state file: everything is read"), "{}: {said}", ran.status);
    assert!(state.metadata().unwrap().len() < 10_000);
}

#[test]
fn the_state_file_keeps_its_permissions_and_may_lie_in_the_archive() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    fs::set_permissions(&state, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("state", home.path().join("link")).unwrap();
    fs::write(dir.path().join("new"), "").unwrap();
    assert!(run(dir.path(), &home.path().join("link"), &[]).1.contains("3 segments unchanged"));
    assert_eq!(state.metadata().unwrap().mode() & 0o7777, 0o640);
    assert_eq!(names(home.path()), ["link", "state"]);
    let inside = dir.path().join("verify.state");
    for expected in [false, true] {
        let (status, out, err) = run(dir.path(), &inside, &[]);
        assert_eq!((status, err.as_str(), out.contains("3 segments unchanged")), (0, "", expected), "{out}");
    }
}

/// Runs at the same time leave one state, and it is whole.
#[test]
fn runs_at_the_same_time() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    let spawn = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        command.args(["verify", "--quiet", "--state"]).arg(&state).arg(dir.path()).stdin(Stdio::null()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    verify(dir.path(), ["."]); // makes the files old
    let runs: Vec<_> = (0..8).map(|_| spawn()).collect();
    for run in runs {
        let output = run.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(names(home.path()), ["state"]);
    assert!(run(dir.path(), &state, &[]).1.starts_with("3 segments unchanged"));
}

/// A failing write leaves the old state, and no other file.
#[test]
fn a_full_disk_leaves_the_old_state() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    let before = fs::read(&state).unwrap();
    fs::rename(dir.path().join("000000010000000000000024"), dir.path().join("x")).ok();
    // No file may be written at all.
    let script = "ulimit -f 0; exec \"$0\" verify --quiet --state \"$1\" \"$2\"";
    let ran = Command::new("sh").args(["-c", script, env!("CARGO_BIN_EXE_pgwal")]).arg(&state).arg(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.code() == Some(2) && said.contains("File too large"), "{}: {said}", ran.status);
    assert!(fs::read(&state).unwrap() == before && names(home.path()) == ["state"]);
}

/// One file has one key, however the way to it is spelt.
#[test]
fn other_ways_to_the_same_folder() {
    let (dir, _, home) = setup();
    let state = home.path().join("state");
    symlink(dir.path(), home.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    assert_eq!(run(dir.path(), &state, &[]).0, 0);
    let link = home.path().join("link");
    let name = dir.path().file_name().unwrap().to_str().unwrap();
    let up = format!("../{name}");
    for way in [".", "./", "sub/..", &up, dir.path().to_str().unwrap(), link.to_str().unwrap()] {
        let (status, out, err) = run(dir.path(), &state, &[way]);
        assert!(status == 0 && err.is_empty() && out.contains("3 segments unchanged and not read again."), "{way}: {out}{err}");
    }
}

#[test]
fn all_is_read_again_within_some_days() {
    let (dir, _, home) = setup();
    let path = home.path().join("state");
    let state = path.to_str().unwrap();
    let reread = |days: &str| {
        let (status, out, err) = verify(dir.path(), ["--state", state, "--reread", days, "."]);
        assert!(status == 0 && err.is_empty(), "{out}{err}");
        out
    };
    assert!(!reread("7").contains("unchanged"));
    // Nothing twice on one day.
    assert!(reread("1").contains("3 segments unchanged and not read again."));
    // As if that had been some days ago.
    let make_older = |days: i64| {
        let archive = pgwal::source::Archive::open(&[dir.path()]).unwrap();
        let (mut known, _) = pgwal::state::State::load(&path).unwrap();
        for (file, _) in archive.segments() {
            let mut verified = known.get(file).unwrap().clone();
            verified.read -= days * 86_400;
            known.insert(file, verified);
        }
        known.store(&path).unwrap();
    };
    make_older(7);
    assert!(!reread("7").contains("unchanged"));
    assert!(reread("7").contains("3 segments unchanged and not read again."));
    make_older(1);
    assert!(!reread("1").contains("unchanged"));
    let (status, _, err) = verify(dir.path(), ["--reread", "7", "."]);
    assert!(status == 2 && err.contains("--state"), "{err}");
    assert_eq!(verify(dir.path(), ["--state", state, "--reread", "0", "."]).0, 2);
}
