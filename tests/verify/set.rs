//! The files as a set: history files, a run that goes on where the last one ended, a restore, and reports for CI systems.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pgwal_testkit::fixtures;
use serde_json::Value;
use tempfile::TempDir;

use crate::{copy, damage, verify};

/// A promotion with its history file: `.partial`, segments and names without a compression's suffix.
fn promotion() -> TempDir {
    let fixture = fixtures::all().into_iter().find(|fixture| fixture.major == 15 && fixture.scenario == "timeline2").unwrap();
    let dir = fixture.unpacked();
    for file in fs::read_dir(dir.path()).unwrap().flatten().filter(|file| !file.file_name().to_string_lossy().starts_with("0000000")) {
        fs::remove_file(file.path()).unwrap();
    }
    dir
}

fn json_lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn history_files_are_checked() {
    let dir = promotion();
    assert_eq!(verify(dir.path(), ["--quiet", "."]), (0, String::new(), String::new()));
    let history = dir.path().join("00000002.history");
    let good = fs::read_to_string(&history).unwrap();
    let switch = good.split_whitespace().nth(1).unwrap();
    let found = |text: Option<&str>| {
        match text {
            Some(text) => fs::write(&history, text).unwrap(),
            None => fs::remove_file(&history).unwrap(),
        }
        let (status, out, err) = verify(dir.path(), ["--format", "json", "--quiet", "."]);
        assert_eq!((status, err.as_str()), (1, ""));
        let mut found = json_lines(&out);
        assert_eq!(found.len(), 1, "{out}");
        assert_eq!((&found[0]["class"], &found[0]["action"]), (&"text_file".into(), &"fetch_file".into()));
        found.remove(0)["problem"].take()
    };
    assert_eq!(found(Some("1\n"))["history_error"], "switch_point");
    assert_eq!(found(Some(&good.replace(switch, "0/7FFFFF8")))["kind"], "switch_point");
    assert_eq!(found(Some(""))["history_error"], "empty");
    assert_eq!(found(None)["kind"], "no_history");
    // Not asked about: that timeline, or segments by name.
    assert_eq!(verify(dir.path(), ["--quiet", "--timeline", "1", "."]).0, 0);
    assert_eq!(verify(dir.path(), ["--quiet", "000000020000000000000008"]).0, 0);
}

#[test]
fn whether_a_restore_comes_there() {
    let dir = promotion();
    let (status, out, err) = verify(dir.path(), ["--reach", "latest", "."]);
    assert_eq!((status, err.as_str()), (0, ""), "{out}");
    let files = "3 files, in this order:\n  ./00000002.history\n  ./000000010000000000000007\n  ./000000020000000000000008\n";
    assert!(out.contains("\nyes: recovery from 0/00700000 along timeline 2 reaches the end of the WAL") && out.ends_with(files), "{out}");
    let (status, out, _) = verify(dir.path(), ["--reach", "latest", "--timeline", "1", "--quiet", "--format", "json", "."]);
    let answer = json_lines(&out).remove(0);
    assert_eq!((status, &answer["type"], &answer["reach"]), (0, &"restore".into(), &"yes".into()));
    assert!(answer["partial"].as_str().unwrap().ends_with("/000000010000000000000008.partial"), "{answer}");
    let (status, out, _) = verify(dir.path(), ["--reach", "2100-01-01 00:00:00Z", "--quiet", "."]);
    assert_eq!(status, 1);
    let no = "no: recovery cannot reach 2100-01-01T00:00:00.000000Z: the WAL has no later transaction, so the server cannot tell \
              that it has reached the target: the WAL ends at ";
    assert!(out.starts_with(no), "{out}");
    // Damage on the way is what stands in the way.
    damage(&dir.path().join("000000010000000000000007"), |bytes| bytes[0x4123] ^= 4);
    let (status, out, _) = verify(dir.path(), ["--reach", "latest", "--quiet", "."]);
    assert_eq!(status, 1);
    assert!(out.contains("no: recovery cannot reach the end of the WAL: ./000000010000000000000007 is damaged at 0/0070"), "{out}");
    for (args, text) in [
        (&["--reach", "tomorrow", "."][..], "expected latest, an LSN like 16/B374D848, or a time like"),
        (&["--reach", "latest", "--from-backup", "none", "."], "none: "),
        (&["--from-backup", "x", "."], "--reach"),
        (&["--reach", "latest", "-"], "need files, not standard input"),
    ] {
        let (status, _, err) = verify(dir.path(), args);
        assert!(status == 2 && err.contains(text), "{args:?}: {err}");
    }
}

fn touch(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).unwrap();
}

#[test]
fn only_what_is_new_is_read() {
    let (dir, files) = copy(15, "workload");
    assert_eq!(files.len(), 3);
    let home = TempDir::new().unwrap();
    let state = home.path().join("state");
    let run = || {
        let (status, out, err) = verify(dir.path(), ["--state".as_ref(), state.as_os_str(), ".".as_ref()]);
        (status, out, err.replace(&home.path().display().to_string(), ""))
    };
    let late = |files: &[PathBuf]| files.iter().for_each(|file| touch(file, 1_100_000_000));
    let (status, full, err) = run();
    assert!(status == 0 && err.is_empty() && full.contains("Checked 3 segments, ") && !full.contains("unchanged"), "{full}");
    let (status, out, err) = run();
    assert!(status == 0 && err.is_empty() && out.starts_with("3 segments unchanged and not read again.\n"), "{out}");
    // Damage that the file's time tells of is found; what stays good is remembered.
    damage(&files[2], |bytes| bytes[0x4123] ^= 4);
    late(&files[2..]);
    let flipped = || {
        // The helper makes all files old; this one has another size besides.
        damage(&files[2], |bytes| bytes.push(0));
    };
    flipped();
    let (status, out, _) = run();
    assert!(status == 1 && out.contains("1 segment unchanged") && out.contains("bit flip"), "{out}");
    let (status, out, _) = run();
    assert!(status == 1 && out.contains("bit flip"), "{out}"); // it is said until it is gone
    // A segment that is missing is missing, read or not.
    fs::remove_file(&files[1]).unwrap();
    let (status, out, _) = run();
    assert!(status == 1 && out.contains("missing segment"), "{out}");
    // A state file that is damaged is as good as none, and that is said.
    let mut bytes = fs::read(&state).unwrap();
    bytes.pop();
    fs::write(&state, bytes).unwrap();
    let (status, out, err) = run();
    assert_eq!((status, err.as_str()), (1, "pgwal: /state: a damaged state file: everything is read\n"));
    assert!(!out.contains("unchanged"), "{out}");
}

#[test]
fn reports_for_ci_systems() {
    let (dir, files) = copy(15, "workload");
    let name = files[1].file_name().unwrap().to_str().unwrap();
    damage(&files[1], |bytes| bytes[0x4123] ^= 4);
    let (status, out, err) = verify(dir.path(), ["--format", "junit", "."]);
    assert_eq!((status, err.as_str()), (1, ""));
    assert!(out.contains("tests=\"3\"") && out.contains("failures=\"1\"") && out.contains("type=\"bit_flip\""), "{out}");
    assert!(out.contains(&format!("<testcase name=\"./{name}\"")), "{out}");
    let (status, out, err) = verify(dir.path(), ["--format", "sarif", "."]);
    assert_eq!((status, err.as_str()), (1, ""));
    let log: Value = serde_json::from_str(&out).unwrap();
    let results = log["runs"][0]["results"].as_array().unwrap();
    assert_eq!((results.len(), &results[0]["ruleId"]), (1, &"bit_flip".into()));
    assert_eq!(results[0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], format!("./{name}"));
}

/// Barman and pgBackRest sort segments into folders of their first 16 digits.
#[test]
fn segments_in_folders() {
    let flat = promotion();
    let top = TempDir::new().unwrap();
    let sum = "-0123456789abcdef0123456789abcdef01234567";
    let in_folders = |name: &str, suffix: &str| {
        for file in fs::read_dir(flat.path()).unwrap().flatten() {
            let old = file.file_name().into_string().unwrap();
            let (folder, new) = match old.len() {
                24 => (format!("{name}/{}", &old[..16]), format!("{old}{suffix}")),
                _ if old.ends_with(".partial") => (format!("{name}/{}", &old[..16]), format!("{old}{suffix}")),
                _ => (name.to_owned(), old.clone()),
            };
            fs::create_dir_all(top.path().join(&folder)).unwrap();
            fs::copy(file.path(), top.path().join(folder).join(new)).unwrap();
        }
        fs::write(top.path().join(name).join("xlog.db"), "a list").unwrap();
    };
    in_folders("wals", "");
    in_folders("15-1", sum);
    let flat = flat.path().to_str().unwrap();
    let (status, whole, err) = verify(top.path(), [flat]);
    assert_eq!((status, err.as_str()), (0, ""), "{whole}");
    let (_, reach, _) = verify(top.path(), ["--reach", "latest", flat]);
    assert!(reach.contains("\nyes: "), "{reach}");
    for folder in ["wals", "15-1"] {
        assert_eq!(verify(top.path(), [folder]), (0, whole.clone(), String::new()), "{folder}");
        let (status, out, _) = verify(top.path(), ["--reach", "latest", folder]);
        assert!(
            status == 0 && out.contains("\nyes: ") && out.contains(&format!("  {folder}/0000000200000000/000000020000000000000008")),
            "{out}"
        );
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_pgwal"));
        let output = command.args(["diff", folder, flat]).current_dir(top.path()).output().unwrap();
        let out = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && out.starts_with("identical: "), "{out}");
    }
    // Damage there is found there.
    let path = top.path().join("wals/0000000200000000/000000020000000000000008");
    damage(&path, |bytes| bytes[0x2100] ^= 1);
    let (status, out, _) = verify(top.path(), ["wals"]);
    assert!(status == 1 && out.contains("wals/0000000200000000/000000020000000000000008:0x2"), "{out}");
}
