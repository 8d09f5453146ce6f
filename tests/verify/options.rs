//! Options, text and exit status.

use std::fs;

use crate::{copy, damage, verify};

#[test]
fn text_says_where_what_and_what_to_do() {
    let (dir, files) = copy(15, "workload");
    damage(&files[1], |bytes| bytes[0x2_4000..0x2_6000].fill(0));
    let (status, out, err) = verify(dir.path(), ["."]);
    let name = files[1].file_name().unwrap().to_str().unwrap();
    assert_eq!((status, err.as_str()), (1, ""));
    let (finding, rest) = out.split_once("\n\n").unwrap();
    assert!(finding.starts_with(&format!("./{name}:0x2")), "{out}");
    assert!(finding.contains(": zeroed page: ") && finding.contains("xlp_magic: expected D110, found 0000"), "{out}");
    assert!(
        finding.ends_with("take this segment from another copy of the WAL (the server's pg_wal, a standby, another archive)."),
        "{out}"
    );
    assert!(rest.contains("Checked 3 segments, ") && rest.ends_with(": 1 finding.\n"), "{out}");
    assert_eq!(verify(dir.path(), ["--quiet", "."]), (1, format!("{finding}\n\n"), String::new()));
}

#[test]
fn parts_of_the_wal() {
    let (dir, files) = copy(15, "workload");
    let names: Vec<&str> = files.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    damage(&files[0], |bytes| bytes[0x5_0000] ^= 1);
    damage(&files[1], |bytes| bytes[0x5_0000] ^= 1);
    damage(&files[2], |bytes| bytes[0x5_0000] ^= 1);
    let count = |args: &[&str]| {
        let (status, out, err) = verify(dir.path(), [&["--quiet"], args].concat());
        assert_eq!(err, "", "{args:?}");
        (status, out.matches("\n\n").count())
    };
    assert_eq!(count(&["."]), (1, 3));
    assert_eq!(count(&[names[0], names[2]]), (1, 3), "a range");
    assert_eq!(count(&[names[1]]), (1, 1), "a segment");
    // To have looked at nothing is not to have found nothing.
    for (args, why) in [
        (&[names[2], names[0]][..], "is before"),
        (&["--timeline", "9", "."], "no WAL in the range"),
        (&["--from", "0/5000000", "."], "no WAL in the range"),
    ] {
        let (status, out, err) = verify(dir.path(), args);
        assert!(status == 2 && out.is_empty() && err.contains(why), "{args:?}: {status} {out}{err}");
    }
    assert_eq!(count(&["--fail-fast", "."]), (1, 1));
    let second: pgwal::SegmentName = names[1].parse().unwrap();
    let lsn = |offset: u64| (second.start(1 << 20) + offset).to_string();
    assert_eq!(count(&["--from", &lsn(0), "."]), (1, 2));
    assert_eq!(count(&["--from", &lsn(0x5_4000), "."]), (1, 1));
    assert_eq!(count(&["--to", &lsn(0x4_0000), "."]), (1, 1));
    assert_eq!(count(&["--from", &lsn(0), "--to", &lsn(0x4_0000), "."]), (0, 0));
    assert_eq!(count(&["--timeline", "1", "."]), (1, 3));
}

#[test]
fn another_cluster_than_the_one_asked_for() {
    let (dir, files) = copy(15, "workload");
    let bytes = fs::read(&files[0]).unwrap();
    let id = u64::from_le_bytes(bytes[24..32].try_into().unwrap());
    assert_eq!(verify(dir.path(), ["--system-identifier", &id.to_string(), "."]).0, 0);
    let (status, out, _) = verify(dir.path(), ["--system-identifier", "5", "."]);
    // One finding that names all three.
    assert_eq!((status, out.matches("foreign cluster: system identifier").count()), (1, 1), "{out}");
    let names = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect::<Vec<_>>();
    assert!(out.starts_with(&format!("./{} to {}, 3 files (", names[0], names[2])), "{out}");
}

#[test]
fn compressed_and_in_archives() {
    let (dir, files) = copy(15, "workload");
    damage(&files[1], |bytes| bytes[0x5_0000] ^= 1);
    let out = verify(dir.path(), ["--format", "json", "."]).1;
    let class = |out: &str| serde_json::from_str::<serde_json::Value>(out.lines().next().unwrap()).unwrap()["lsns"].clone();
    let tar = dir.path().join("wal.tar");
    let mut archive = tar::Builder::new(fs::File::create(&tar).unwrap());
    for path in files.iter().rev() {
        archive.append_path_with_name(path, path.file_name().unwrap()).unwrap();
    }
    archive.finish().unwrap();
    let packed = dir.path().join("wal.tar.zst");
    fs::write(&packed, zstd::bulk::compress(&fs::read(&tar).unwrap(), 1).unwrap()).unwrap();
    for input in ["wal.tar", "wal.tar.zst"] {
        let (status, found, err) = verify(dir.path(), ["--format", "json", input]);
        assert_eq!((status, err.as_str(), found.lines().count()), (1, "", 2), "{input}: {found}");
        assert_eq!(class(&found), class(&out), "{input}");
    }
    for path in &files {
        fs::write(path.with_extension("zst"), zstd::bulk::compress(&fs::read(path).unwrap(), 1).unwrap()).unwrap();
        fs::remove_file(path).unwrap();
    }
    let (status, found, _) = verify(dir.path(), ["--format", "json", "."]);
    assert_eq!((status, class(&found)), (1, class(&out)));
}

#[test]
fn could_not_run() {
    let dir = tempfile::tempdir().unwrap();
    for args in [&["nothing-here"][..], &["."], &["--from", "x", "."], &["--threads", "0", "."], &["--format", "xml", "."]] {
        let (status, out, err) = verify(dir.path(), args);
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}");
        assert!(!err.is_empty(), "{args:?}");
    }
}

/// Nobody is told that nobody listens.
#[test]
fn a_closed_pipe_is_quiet_in_every_form() {
    use std::io::Read;
    use std::process::{Command, Stdio};
    let dir = tempfile::TempDir::new().unwrap();
    for n in 0..3000 {
        // None of them follows another, so that each has a finding of its own.
        fs::write(dir.path().join(format!("0000000100000000{:08X}", 2 * n)), "damaged").unwrap();
    }
    for format in ["text", "json", "junit", "sarif"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        command.args(["verify", "--format", format, "."]).current_dir(dir.path()).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 100]).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), String::from_utf8_lossy(&output.stderr).as_ref()), (Some(141), ""), "{format}");
    }
}

#[test]
fn metrics_in_a_file() {
    let (dir, files) = copy(15, "workload");
    damage(&files[1], |bytes| bytes[0x2_4000..0x2_6000].fill(0));
    let home = tempfile::TempDir::new().unwrap();
    let path = home.path().join("pgwal.prom");
    let output = path.to_str().unwrap();
    let run = |more: &[&str]| verify(dir.path(), [&["--format", "prometheus", "-o", output], more, &["."]].concat());
    assert_eq!(run(&[]), (1, String::new(), String::new()));
    let text = fs::read_to_string(&path).unwrap();
    let labels = format!("path=\"{}\"", fs::canonicalize(dir.path()).unwrap().display());
    for line in [
        format!("pgwal_verify_findings{{{labels}}} 1"),
        format!("pgwal_verify_class_findings{{{labels},class=\"zeroed_page\"}} 1"),
        format!("pgwal_verify_segments{{{labels}}} 3"),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains("target_reachable") && text.contains("pgwal_verify_last_run_timestamp_seconds{"), "{text}");
    run(&["--reach", "latest"]);
    assert!(fs::read_to_string(&path).unwrap().contains(&format!("pgwal_verify_target_reachable{{{labels}}} 0\n")));
    // What could not run leaves the file as it was; nothing else is left there.
    fs::write(&path, "old").unwrap();
    assert_eq!(verify(dir.path(), ["--format", "prometheus", "-o", output, "nowhere"]).0, 2);
    assert_eq!((fs::read_to_string(&path).unwrap().as_str(), fs::read_dir(home.path()).unwrap().count()), ("old", 1));
    // Any form; but never over WAL.
    assert_eq!(verify(dir.path(), ["-o", output, "."]), (1, String::new(), String::new()));
    assert!(fs::read_to_string(&path).unwrap().ends_with(": 1 finding.\n"));
    let (status, _, err) = verify(dir.path(), ["-o", "000000010000000000000099", "."]);
    assert!(status == 2 && err.contains("an output file cannot have the name of a WAL file"), "{err}");
}
