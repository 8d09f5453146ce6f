//! The answer to `--reach` in each form of output, and from each form of a base backup.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use flate2::read::GzDecoder;
use pgwal_testkit::server::{Postgres, wait_until};
use serde_json::Value;

use super::verify;

/// The archive and the backup of fixtures/restore; its first segment, which the backup does not need, has a byte that should be zero.
fn restore() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/restore");
    for file in fs::read_dir(from.join("archive")).unwrap().flatten() {
        fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    fs::create_dir_all(dir.path().join("monday/global")).unwrap();
    for file in ["backup_label", "global/pg_control"] {
        fs::copy(from.join("monday").join(file), dir.path().join("monday").join(file)).unwrap();
    }
    let first = dir.path().join("000000010000000000000006");
    let packed = fs::File::open(first.with_extension("gz")).unwrap();
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut GzDecoder::new(packed), &mut bytes).unwrap();
    let last = bytes.len() - 5;
    bytes[last] = 0xFF;
    fs::write(&first, bytes).unwrap();
    fs::remove_file(first.with_extension("gz")).unwrap();
    dir
}

/// A finding that is not in the way does not make the yes a no, and is told all the same.
#[test]
fn a_yes_beside_findings_says_both() {
    let dir = restore();
    let ask = |target: &str, form: &str| verify(dir.path(), ["--from-backup", "monday", "--reach", target, "--format", form, "."]);
    let (status, out, _) = ask("latest", "text");
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("000000010000000000000006:0x") && out.contains("not zero: bytes that the format leaves unused"), "{out}");
    assert!(out.contains("\nyes: recovery from base backup monday at 0/00700028"), "{out}");
    assert!(out.contains("\nnote: the finding above is not in the way of this\n"), "{out}");
    let (status, out, _) = ask("latest", "json");
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let line = |kind: &str| lines.iter().find(|line| line["type"] == kind).unwrap();
    assert_eq!((status, &line("finding")["class"], &line("summary")["findings"]), (0, &"not_zero".into(), &1.into()), "{out}");
    assert_eq!(line("restore")["reach"], "yes", "{out}");
    let (status, out, _) = ask("latest", "junit");
    assert_eq!(status, 0, "{out}");
    assert!(out.contains(r#"tests="8" failures="1" errors="0""#) && out.contains(r#"<failure type="not_zero""#), "{out}");
    let case = out.split(r#"classname="pgwal.verify.restore">"#).nth(1).unwrap();
    assert!(case.trim_start().starts_with("<system-out>yes: recovery"), "{out}");
    let (status, out, _) = ask("latest", "sarif");
    let report: Value = serde_json::from_str(&out).unwrap();
    let results: Vec<(&str, &str)> = report["runs"][0]["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|result| (result["ruleId"].as_str().unwrap(), result["kind"].as_str().unwrap_or("fail")))
        .collect();
    assert_eq!((status, results), (0, vec![("not_zero", "fail"), ("restore", "pass")]), "{out}");
    // A no has status 1 with the same finding, and without the note.
    let (status, out, _) = ask("name:none", "text");
    assert!(status == 1 && out.contains("\nno: ") && !out.contains("not in the way"), "{out}");
}

/// From tar archives, named themselves or by their folder, compressed or not, the answer is that from the plain directory.
#[test]
fn from_tar_archives() {
    let Some(postgres) = Postgres::find_or_skip(None, "answers::from_tar_archives") else { return };
    let server = postgres.start(&["--wal-segsize=1"], "wal_keep_size = 64MB\nautovacuum = off").unwrap();
    let conninfo = format!("host={} user=postgres", server.socket().display());
    let dir = tempfile::tempdir().unwrap();
    let take = |name: &str, args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        command.args(["basebackup", "-c", "fast", "-d", &conninfo, "-D"]).arg(dir.path().join(name)).args(args);
        let ran = command.stdin(Stdio::null()).output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    };
    take("plain", &[]);
    take("tar", &["-F", "tar"]);
    take("fetched", &["-F", "tar", "-X", "fetch"]);
    take("packed", &["-F", "tar", "-z"]);
    server.sql("CREATE TABLE t AS SELECT 1").unwrap();
    let last = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let end = server.sql("SELECT pg_current_wal_insert_lsn()").unwrap();
    wait_until("the segment", || server.wal().join(&last).exists());
    let archive = dir.path().join("archive");
    fs::create_dir(&archive).unwrap();
    for file in fs::read_dir(server.wal()).unwrap().flatten() {
        let name = file.file_name().into_string().unwrap();
        if name.len() == 24 && name <= last {
            fs::copy(file.path(), archive.join(&name)).unwrap();
        }
    }
    let ask = |backup: &str, target: &str| {
        let backup = dir.path().join(backup).display().to_string();
        let (status, out, err) = verify(&archive, ["--reach", target, "--from-backup", &backup, "--format", "json", "--quiet", "."]);
        let mut answer: Value = serde_json::from_str(out.lines().last().unwrap_or_else(|| panic!("{status} {err}"))).unwrap();
        assert_eq!(status, i32::from(answer["reach"] != "yes"), "{answer:#}");
        answer["backup"] = Value::Null;
        answer
    };
    for target in ["latest", "immediate", "0/1", &end] {
        let starts: Vec<Value> = ["plain", "tar", "fetched", "packed"].iter().map(|name| ask(name, target)).collect();
        for answer in &starts {
            assert_eq!(answer["reach"], starts[0]["reach"], "{target}: {answer:#}");
            assert!(answer["start"].is_string(), "{answer:#}");
        }
        for (folder, file) in [("tar", "tar/base.tar"), ("fetched", "fetched/base.tar"), ("packed", "packed/base.tar.gz")] {
            assert_eq!(ask(file, target), ask(folder, target), "{target}");
        }
    }
    assert_eq!((&ask("tar", "latest")["reach"], &ask("tar", "0/1")["obstacle"]["obstacle"]), (&"yes".into(), &"before_consistency".into()));
    // Its own WAL is read where the archive does not have it.
    for file in fs::read_dir(&archive).unwrap().flatten().filter(|file| *file.file_name() != *last) {
        fs::remove_file(file.path()).unwrap();
    }
    for name in ["tar", "fetched/base.tar", "packed"] {
        assert_eq!(ask(name, "immediate")["reach"], "yes", "{name}");
    }
}
