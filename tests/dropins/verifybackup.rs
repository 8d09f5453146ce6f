//! pgwal as pg_verifybackup, beside the real one: what each says of the same backups and manifests, and whether they accept them.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgwal_testkit::server::{Postgres, Server};
use rayon::prelude::*;
use sha2::{Digest, Sha256};

/// Both programs of a release, and a backup that its pg_basebackup made.
struct Pair {
    postgres: Postgres,
    server: Server,
    backup: PathBuf,
    bin: tempfile::TempDir,
    work: tempfile::TempDir,
}

/// How a change of a backup is compared.
#[derive(Clone, Copy, PartialEq)]
enum Texts {
    /// What the real program says is the start of what pgwal says, line by line.
    Same,
    /// They differ on purpose, or in their order.
    Own,
}

impl Pair {
    /// Of each release that has both programs here; the test is skipped where there is none.
    fn all(test: &str) -> Vec<Pair> {
        let Some(installed) = Postgres::find_or_skip(None, test) else { return Vec::new() };
        let mut found = Postgres::all();
        found.retain(|postgres| postgres.major >= 13 && postgres.major != installed.major);
        found.retain(|postgres| ["pg_verifybackup", "pg_basebackup", "pg_waldump"].iter().all(|name| postgres.program(name).exists()));
        found.push(installed);
        found.into_iter().map(Pair::new).collect()
    }

    fn new(postgres: Postgres) -> Pair {
        let server = postgres.start(&[], "max_wal_senders = 4\nwal_level = replica").unwrap();
        server.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) i").unwrap();
        let backup = server.dir().join("backup");
        server.client("pg_basebackup", ["-D", backup.to_str().unwrap(), "-c", "fast", "--no-sync"]).unwrap();
        // With the release beside it that it stands in for.
        let bin = super::bin();
        symlink(postgres.program("pg_controldata"), bin.path().join("pg_controldata")).unwrap();
        Pair { postgres, server, backup, bin, work: tempfile::tempdir().unwrap() }
    }

    fn manifest(&self) -> String {
        fs::read_to_string(self.backup.join("backup_manifest")).unwrap()
    }

    fn run(&self, args: &[&str]) -> [Output; 2] {
        [self.postgres.program("pg_verifybackup"), self.bin.path().join("pg_verifybackup")].map(|program| {
            let mut command = Command::new(program);
            command.args(args).env("LC_ALL", "C").env_remove("PG_COLOR").env_remove("PGWAL_POSTGRES_VERSION");
            command.output().unwrap()
        })
    }

    /// What is different between the two; `None`: nothing.
    fn compare(&self, what: &str, args: &[&str], texts: Texts) -> Option<String> {
        let [real, ours] = self.run(args);
        // Before that, pg_waldump may have said up to 16 that it skips something.
        let last_line = |output: &Output| String::from_utf8_lossy(&output.stdout).lines().last().map(str::to_owned);
        let said = |output: &Output| {
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            let mut lines: Vec<String> =
                text.lines().filter(|line| line.starts_with("pg_verifybackup: error: ")).map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let (real_lines, our_lines) = (said(&real), said(&ours));
        let is_said = |(real, ours): (&String, &String)| ours.starts_with(real.as_str());
        let same = real_lines.len() == our_lines.len() && real_lines.iter().zip(&our_lines).all(is_said);
        if real.status.code() == ours.status.code() && last_line(&real) == last_line(&ours) && (same || texts == Texts::Own) {
            return None;
        }
        let mut text = format!("{} {what}: status {:?} and {:?}\n", self.postgres.major, real.status.code(), ours.status.code());
        writeln!(text, "  real: {}\n  ours: {}", String::from_utf8_lossy(&real.stderr), String::from_utf8_lossy(&ours.stderr)).unwrap();
        Some(text)
    }

    /// As [`Pair::compare`], with this manifest.
    fn compare_manifest(&self, number: usize, what: &str, manifest: &[u8], args: &[&str], texts: Texts) -> Option<String> {
        let path = self.work.path().join(format!("manifest_{number}"));
        fs::write(&path, manifest).unwrap();
        let args = [args, &["-m", path.to_str().unwrap(), self.backup.to_str().unwrap()]].concat();
        let different = self.compare(what, &args, texts);
        fs::remove_file(path).unwrap();
        different
    }
}

/// A manifest with the checksum that its lines come to.
fn sealed(manifest: &str) -> String {
    let at = manifest.rfind("\"Manifest-Checksum\"").unwrap_or(manifest.len());
    let mut digits = String::new();
    Sha256::digest(&manifest[..at]).iter().for_each(|byte| write!(digits, "{byte:02x}").unwrap());
    format!("{}\"Manifest-Checksum\": \"{digits}\"}}\n", &manifest[..at])
}

fn fail_with(different: Vec<String>) {
    assert!(different.is_empty(), "{} cases differ:\n{}", different.len(), different[..different.len().min(20)].concat());
}

/// Every manifest that was changed without a new checksum, byte by byte where it can matter, is judged as by the real program.
#[test]
fn changed_manifests_are_judged_as_by_the_real_program() {
    for pair in Pair::all("changed_manifests_are_judged_as_by_the_real_program") {
        let manifest = pair.manifest().into_bytes();
        let last_line = manifest[..manifest.len() - 1].iter().rposition(|&byte| byte == b'\n').unwrap() + 1;
        let mut cases: Vec<(String, Vec<u8>)> = vec![("as it is".into(), manifest.clone())];
        // All of the line with the checksum, and some of the rest.
        let places = (last_line - 1..=manifest.len()).step_by(3).chain((0..last_line).step_by(last_line / 25));
        for at in places {
            let (before, after) = manifest.split_at(at);
            for added in [" ", "\n", "a"] {
                cases.push((format!("{added:?} at {at}"), [before, added.as_bytes(), after].concat()));
            }
            if let [first, rest @ ..] = after {
                cases.push((format!("without byte {at}"), [before, rest].concat()));
                cases.push((format!("bit 0x20 of byte {at}"), [before, &[first ^ 0x20], rest].concat()));
            }
            cases.push((format!("cut at {at}"), before.to_vec()));
        }
        for added in ["\n", " ", "\r\n", "\t\n", "\0", "{}\n", "\n\n", " \n", "\u{feff}"] {
            cases.push((format!("{added:?} at the end"), [&manifest, added.as_bytes()].concat()));
            cases.push((format!("{added:?} at the front"), [added.as_bytes(), &manifest].concat()));
            let without = &manifest[..manifest.len() - 1];
            cases.push((format!("{added:?} in the place of the last newline"), [without, added.as_bytes()].concat()));
        }
        let text = String::from_utf8(manifest.clone()).unwrap();
        let upper = text[last_line..].replace("\"Manifest-Checksum\"", "").to_ascii_uppercase();
        cases.push(("capital digits".into(), [&manifest[..last_line], b"\"Manifest-Checksum\"", upper.as_bytes()].concat()));
        cases.push(("checksum on the line before".into(), text.replace("],\n\"Manifest", "],\"Manifest").into_bytes()));
        cases.push(("Windows newlines".into(), text.replace('\n', "\r\n").into_bytes()));
        let check = |(number, (what, manifest)): (usize, &(String, Vec<u8>))| {
            // 18 reads long ones in pieces and has other words for some errors.
            let texts = if pair.postgres.major < 17 { Texts::Same } else { Texts::Own };
            pair.compare_manifest(number, what, manifest, &["-s", "-n"], texts)
        };
        fail_with(cases.par_iter().enumerate().filter_map(|(number, case)| check((number, case))).collect());
    }
}

/// Manifests that say something else, under a checksum that is right.
#[test]
fn manifests_that_say_something_else_are_judged_as_by_the_real_program() {
    for pair in Pair::all("manifests_that_say_something_else_are_judged_as_by_the_real_program") {
        let manifest = pair.manifest();
        let version = if pair.postgres.major >= 17 { "2" } else { "1" };
        let find = |start: &str| {
            let at = manifest.find(start).unwrap();
            manifest[at..].split_inclusive('\n').next().unwrap()
        };
        let file = find("{ \"Path\": \"PG_VERSION\"").trim_end_matches(",\n");
        let size = "\"Size\": 3,";
        let range = find("{ \"Timeline\"").trim_end();
        let [start, end] = ["Start", "End"].map(|name| {
            let rest = range.split_once(&format!("\"{name}-LSN\": \"")).unwrap().1;
            rest.split_once('"').unwrap().0
        });
        let segment = format!("{}000000", &start[..start.len() - 6]);
        let ranges = &manifest[manifest.find("\"WAL-Ranges\"").unwrap()..manifest.find("\"Manifest-Checksum\"").unwrap()];
        let files = &manifest[manifest.find("\"Files\"").unwrap()..manifest.find("\"WAL-Ranges\"").unwrap()];
        let checksum = file.split_once("\"Checksum\": ").unwrap().1.trim_end_matches(" }");
        let algorithm = "\"Checksum-Algorithm\": \"CRC32C\"";
        let in_file = |from: &str, to: &str| {
            assert!(file.contains(from), "{from}");
            manifest.replace(file, &file.replace(from, to))
        };
        let lsn = |from: &str, to: &str| manifest.replace(range, &range.replace(&format!("\"{from}\""), &format!("\"{to}\"")));
        let hexadecimal = "50475f56455253494f4e";
        let cases = [
            ("nothing", manifest.clone()),
            ("no ranges", manifest.replace(ranges, "\"WAL-Ranges\": [],\n")),
            ("no list of ranges", manifest.replace(ranges, "")),
            ("no files", manifest.replace(files, "\"Files\": [],\n")),
            ("no list of files", manifest.replace(files, "")),
            ("ranges twice", manifest.replace(ranges, &format!("{ranges}{ranges}"))),
            ("files twice", manifest.replace(files, &format!("{files}{files}"))),
            ("files after ranges", manifest.replace(files, "").replace(ranges, &format!("{ranges}{files}"))),
            ("version as text", manifest.replace(&format!("Version\": {version}"), &format!("Version\": \"{version}\""))),
            ("version 3", manifest.replace(&format!("Version\": {version}"), "Version\": 3")),
            ("version 0", manifest.replace(&format!("Version\": {version}"), "Version\": 0")),
            ("version null", manifest.replace(&format!("Version\": {version}"), "Version\": null")),
            ("no version", manifest.replace(&format!("\"PostgreSQL-Backup-Manifest-Version\": {version},"), "")),
            ("something more", manifest.replace(files, &format!("\"More\": 1,\n{files}"))),
            ("a file more", manifest.replace(file, &format!("{file},\n{{ \"Path\": \"no/such\", \"Size\": 1 }}"))),
            ("a file less", manifest.replace(&format!("{file},\n"), "")),
            ("a file twice", manifest.replace(file, &format!("{file},\n{file}"))),
            ("a file outside", manifest.replace(file, &format!("{file},\n{{ \"Path\": \"../postmaster.pid\", \"Size\": 1 }}"))),
            ("an absolute path", manifest.replace(file, &format!("{file},\n{{ \"Path\": \"/etc/passwd\", \"Size\": 1 }}"))),
            ("an empty path", manifest.replace(file, &format!("{file},\n{{ \"Path\": \"\", \"Size\": 1 }}"))),
            ("a path that leads back", in_file("PG_VERSION", "base/../PG_VERSION")),
            ("a path with a dot", in_file("PG_VERSION", "./PG_VERSION")),
            ("an escaped path", in_file("PG_VERSION", "\\u0050G_VERSIO\\u004e")),
            ("an encoded path", in_file("\"Path\": \"PG_VERSION\"", &format!("\"Encoded-Path\": \"{hexadecimal}\""))),
            (
                "an encoded path, capitals",
                in_file("\"Path\": \"PG_VERSION\"", &format!("\"Encoded-Path\": \"{}\"", hexadecimal.to_uppercase())),
            ),
            ("an encoded path that is cut", in_file("\"Path\": \"PG_VERSION\"", &format!("\"Encoded-Path\": \"{}\"", &hexadecimal[1..]))),
            ("an encoded path with a zero", in_file("\"Path\": \"PG_VERSION\"", &format!("\"Encoded-Path\": \"{hexadecimal}0041\""))),
            ("both paths", in_file("\"Path\"", &format!("\"Encoded-Path\": \"{hexadecimal}\", \"Path\""))),
            ("no path", in_file("\"Path\": \"PG_VERSION\", ", "")),
            ("a path that is a number", in_file("\"Path\": \"PG_VERSION\"", "\"Path\": 5")),
            ("no size", in_file(size, "")),
            ("a size as text", in_file(size, "\"Size\": \"3\",")),
            ("a size with blanks", in_file(size, "\"Size\": \" +3\",")),
            ("an empty size", in_file(size, "\"Size\": \"\",")),
            ("another size", in_file(size, "\"Size\": 4,")),
            ("a negative size", in_file(size, "\"Size\": -3,")),
            ("a size with a fraction", in_file(size, "\"Size\": 3.0,")),
            ("a size with an exponent", in_file(size, "\"Size\": 3e0,")),
            ("a size that is too large", in_file(size, "\"Size\": 99999999999999999999,")),
            ("the size twice", in_file(size, "\"Size\": 4, \"Size\": 3,")),
            ("no checksum", in_file(&format!(", \"Checksum\": {checksum}"), "")),
            ("no algorithm", in_file(&format!("{algorithm}, "), "")),
            ("neither", in_file(&format!(", {algorithm}, \"Checksum\": {checksum}"), "")),
            ("algorithm none", in_file(algorithm, "\"Checksum-Algorithm\": \"none\"")),
            ("algorithm in small letters", in_file(algorithm, "\"Checksum-Algorithm\": \"crc32c\"")),
            ("another algorithm", in_file(algorithm, "\"Checksum-Algorithm\": \"SHA256\"")),
            ("an unknown algorithm", in_file(algorithm, "\"Checksum-Algorithm\": \"MD5\"")),
            ("another checksum", in_file(checksum, "\"00000000\"")),
            ("a checksum in capitals", in_file(checksum, &checksum.to_uppercase())),
            ("a longer checksum", in_file(checksum, "\"0000000000\"")),
            ("an empty checksum", in_file(checksum, "\"\"")),
            ("a checksum that is null", in_file(checksum, "null")),
            ("a checksum of other letters", in_file(checksum, "\"0000000x\"")),
            ("no time", manifest.replace("\"Last-Modified\"", "\"Last-Altered\"")),
            ("a time that is none", in_file("GMT", "?")),
            ("a file that is an array", manifest.replace(file, "[]")),
            ("a file that is text", manifest.replace(file, "\"PG_VERSION\"")),
            ("a comma too many", manifest.replace(file, &format!("{file},"))),
            ("a comma too few", manifest.replace(&format!("{file},"), file)),
            ("an object in a file", in_file(size, "\"Size\": {},")),
            ("no timeline", manifest.replace(range, &range.replace("\"Timeline\": 1, ", ""))),
            ("another timeline", manifest.replace(range, &range.replace("\"Timeline\": 1", "\"Timeline\": 2"))),
            ("timeline 0", manifest.replace(range, &range.replace("\"Timeline\": 1", "\"Timeline\": 0"))),
            ("a timeline as text", manifest.replace(range, &range.replace("\"Timeline\": 1", "\"Timeline\": \"1\""))),
            ("a timeline that is none", manifest.replace(range, &range.replace("\"Timeline\": 1", "\"Timeline\": 1.5"))),
            ("more of a range", manifest.replace(range, &range.replace("\"Timeline\"", "\"Time\": 1, \"Timeline\""))),
            ("the start of the segment", lsn(start, &segment)),
            ("a start inside a record", lsn(start, &format!("{}9", &start[..start.len() - 1]))),
            ("a start before the WAL", lsn(start, "0/1000028")),
            ("start 0", lsn(start, "0/0")),
            ("a start that is none", lsn(start, "zero")),
            ("a start as C writes hexadecimal numbers", lsn(start, &start.replace("0/", "0x0/0x"))),
            ("an earlier end", lsn(end, &format!("{}60", &end[..end.len() - 2]))),
            ("a later end", lsn(end, "0/FF000000")),
            ("end 0", lsn(end, "0/0")),
            ("an end before the start", lsn(end, "0/1000000")),
            ("an end with more behind it", lsn(end, &format!("{end} and more"))),
        ];
        let check = |(number, (what, manifest)): (usize, &(&str, String))| {
            assert!(*what == "nothing" || *manifest != pair.manifest(), "{what}");
            let texts = if pair.postgres.major < 17 { Texts::Same } else { Texts::Own };
            let args: &[&str] =
                if what.contains("checksum") || what.contains("algorithm") || what.contains("neither") { &["-n"] } else { &["-s"] };
            pair.compare_manifest(number, what, sealed(manifest).as_bytes(), args, texts)
        };
        fail_with(cases.par_iter().enumerate().filter_map(|(number, case)| check((number, case))).collect());
    }
}

/// Changes the bytes of a file.
type Change = fn(&mut Vec<u8>);

/// Backups that were changed, and the options that make the changes count or not.
#[test]
fn changed_backups_are_judged_as_by_the_real_program() {
    for pair in Pair::all("changed_backups_are_judged_as_by_the_real_program") {
        let backup = pair.backup.to_str().unwrap();
        let path = |name: &str| pair.backup.join(name);
        let segment = fs::read_dir(path("pg_wal")).unwrap().flatten().find(|entry| entry.file_name().len() == 24).unwrap().path();
        let segment = segment.strip_prefix(&pair.backup).unwrap().to_str().unwrap().to_owned();
        let mut different = Vec::new();
        let mut try_all = |what: &str, all: &[&[&str]]| {
            for args in all {
                different.extend(pair.compare(&format!("{what} {args:?}"), &[args, &[backup][..]].concat(), Texts::Same));
            }
        };
        let usual: [&[&str]; 5] = [&[], &["-s"], &["-n"], &["-e"], &["-q"]];
        let original = |name: &str| fs::read(path(name)).unwrap();
        try_all("nothing", &usual);
        let changed: [(&str, &[Change]); 5] = [
            ("PG_VERSION", &[|bytes| bytes.fill(b'q'), |bytes| bytes.push(b'x')]),
            ("global/pg_control", &[|bytes| bytes.push(b'x')]),
            ("postgresql.auto.conf", &[|bytes| bytes.push(b'\n')]),
            (&segment, &[|bytes| bytes.fill(b'w'), |bytes| bytes[0x60] ^= 1, |bytes| bytes.fill(0)]),
            ("pg_hba.conf", &[|bytes| bytes[20] ^= 1, |bytes| bytes.clear()]),
        ];
        for (name, changes) in changed {
            let before = original(name);
            for change in changes {
                let mut bytes = before.clone();
                change(&mut bytes);
                fs::write(path(name), bytes).unwrap();
                try_all(name, &usual);
                try_all(name, &[&["-i", name], &["-i", "base"], &["-i", "PG_", "--ignore=global//"], &["-i", "."]]);
                fs::write(path(name), &before).unwrap();
            }
            fs::remove_file(path(name)).unwrap();
            // Without PG_VERSION, 18 takes it for a backup in tar form.
            if !(name == "PG_VERSION" && pair.postgres.major >= 18) {
                try_all(&format!("no {name}"), &usual);
                try_all(&format!("no {name}"), &[&["-i", name]]);
            }
            fs::write(path(name), before).unwrap();
        }
        fs::write(path("base/extra"), "x").unwrap();
        try_all("a file more", &usual);
        try_all("a file more", &[&["-i", "base/extra"], &["-i", "base"], &["-i", "base/ext"], &["-i", "./base/extra/"]]);
        fs::remove_file(path("base/extra")).unwrap();
        symlink("nowhere", path("dangling")).unwrap();
        try_all("a link to nowhere", &usual);
        fs::remove_file(path("dangling")).unwrap();
        let elsewhere = pair.backup.with_file_name("elsewhere");
        fs::rename(path("pg_wal"), &elsewhere).unwrap();
        try_all("WAL elsewhere", &[&[], &["-n"], &["-w", elsewhere.to_str().unwrap()], &["-w", "/nowhere"]]);
        try_all("wrong options", &[&["x"], &["--ignore"], &["-m", "/nowhere"], &["-m", "/"], &["--no"], &["--nope"]]);
        fs::remove_file(path("backup_manifest")).unwrap();
        try_all("no manifest", &usual);
        fail_with(different);
    }
}

/// What the real program cannot do: archives of every release, and the WAL in them.
#[test]
fn archives_and_their_wal_are_verified() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "archives_and_their_wal_are_verified") else { return };
    let server = postgres.start(&[], "max_wal_senders = 4\nwal_level = replica").unwrap();
    let bin = super::bin();
    let run = |dir: &Path, args: &[&str]| {
        let output = super::run(&bin.path().join("pg_verifybackup"), &[args, &[dir.to_str().unwrap()]].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for compression in ["none", "client-gzip", "server-zstd", "server-lz4"] {
        let backup = server.dir().join(compression);
        let args = ["-D", backup.to_str().unwrap(), "-F", "tar", "-c", "fast", "--no-sync", "-Z", compression];
        server.client("pg_basebackup", args).unwrap();
        assert_eq!(run(&backup, &[]), (Some(0), String::new()), "{compression}");
        assert_eq!(run(&backup, &["-F", "t", "-n"]), (Some(0), String::new()));
        assert_eq!(run(&backup, &["-F", "p", "-n"]).0, Some(1));
        let (wal, base): (Vec<PathBuf>, Vec<PathBuf>) = fs::read_dir(&backup)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| !path.ends_with("backup_manifest"))
            .partition(|path| path.file_name().unwrap().to_str().unwrap().starts_with("pg_wal"));
        let [wal, base] = [&wal[0], &base[0]];
        let bytes = fs::read(base).unwrap();
        // Cut short, and damaged in the middle.
        fs::write(base, &bytes[..bytes.len() / 2]).unwrap();
        let (status, stderr) = run(&backup, &["-n"]);
        assert_eq!((status, stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert!(stderr.contains("error: could not read file \"base.tar"), "{stderr}");
        let mut changed = bytes.clone();
        let middle = bytes.len() / 2;
        changed[middle..middle + 600].iter_mut().for_each(|byte| *byte ^= 0x55);
        fs::write(base, &changed).unwrap();
        let (status, stderr) = run(&backup, &["-n"]);
        assert!(status == Some(1) && stderr.contains("pg_verifybackup: error: "), "{stderr}");
        fs::write(base, &bytes).unwrap();
        if compression == "none" {
            let at = bytes.windows(10).position(|bytes| bytes == b"PG_VERSION").unwrap();
            let mut other = bytes.clone();
            other[at + 512] = b'9';
            fs::write(base, &other).unwrap();
            let expected = "pg_verifybackup: error: checksum mismatch for file \"PG_VERSION\" in archive \"base.tar\"\n";
            assert_eq!(run(&backup, &[]), (Some(1), expected.to_owned()));
            assert_eq!(run(&backup, &["-s"]), (Some(0), String::new()));
            assert_eq!(run(&backup, &["-i", "PG_VERSION"]), (Some(0), String::new()));
            fs::write(base, &bytes).unwrap();
        }
        fs::write(backup.join("more.tar"), "").unwrap();
        let expected = "pg_verifybackup: error: file \"more.tar\" is not expected in a tar format backup\n";
        assert_eq!(run(&backup, &[]), (Some(1), expected.to_owned()));
        fs::remove_file(backup.join("more.tar")).unwrap();
        fs::remove_file(wal).unwrap();
        let (status, stderr) = run(&backup, &[]);
        assert!(status == Some(1) && stderr.starts_with("pg_verifybackup: error: WAL parsing failed for timeline 1\n"), "{stderr}");
        assert_eq!(run(&backup, &["-n"]), (Some(0), String::new()));
    }
}

/// The WAL that a backup needs is there in full, as the server will look for it: no more and no less than the real program asks for.
#[test]
fn wal_that_ends_too_early_or_has_another_name_is_a_problem() {
    let test = "wal_that_ends_too_early_or_has_another_name_is_a_problem";
    let Some(postgres) = Postgres::find_or_skip(Some(15), test) else { return };
    let server = postgres.start(&["--wal-segsize=1"], "max_wal_senders = 4\nwal_level = replica").unwrap();
    let backup = server.dir().join("backup");
    // While it runs, the server writes several segments.
    server.sql("CREATE TABLE filled AS SELECT i, md5(i::text) FROM generate_series(1, 10000) i").unwrap();
    server.client("pg_basebackup", ["-D", backup.to_str().unwrap(), "-c", "fast", "--no-sync"]).unwrap();
    let bin = super::bin();
    let run = |program: &Path| super::run(program, &[backup.to_str().unwrap()]).status.code();
    let (ours, theirs) = (bin.path().join("pg_verifybackup"), postgres.program("pg_verifybackup"));
    let judged = |what: &str, expected: i32| {
        assert_eq!((run(&ours), run(&theirs)), (Some(expected), Some(expected)), "{what}");
    };
    judged("as it came", 0);
    let wal = backup.join("pg_wal");
    let mut segments: Vec<PathBuf> = fs::read_dir(&wal).unwrap().map(|file| file.unwrap().path()).filter(|path| path.is_file()).collect();
    segments.sort();
    let last = segments.last().unwrap();
    let bytes = fs::read(last).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    let zeroed = |from: usize| [&bytes[..from], &vec![0; bytes.len() - from][..]].concat();
    let noise: Vec<u8> = (0..bytes.len()).map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for (what, changed) in [("zeroes", zeroed(0)), ("without its last records", zeroed(used - 40)), ("noise", noise)] {
        fs::write(last, changed).unwrap();
        judged(what, 1);
    }
    fs::write(last, &bytes).unwrap();
    let other = PathBuf::from(format!("{}.partial", last.display()));
    fs::rename(last, &other).unwrap();
    judged("partial", 1);
    fs::rename(&other, last).unwrap();
    assert!(Command::new("gzip").arg(last).status().unwrap().success());
    judged("compressed", 1);
    assert!(Command::new("gunzip").arg(last).status().unwrap().success());
    judged("as it came", 0);
}

/// What must not be read, or not for ever.
#[test]
fn pipes_loops_and_unreadable_directories_are_problems() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let backup = dir.path().join("backup");
    fs::create_dir(&backup).unwrap();
    let manifest = sealed("{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{ \"Path\": \"PG_VERSION\", \"Size\": 3 } ],\n");
    fs::write(backup.join("backup_manifest"), manifest).unwrap();
    fs::write(backup.join("PG_VERSION"), "15\n").unwrap();
    let bin = super::bin();
    let run = |args: &[&str]| {
        let output = super::run(&bin.path().join("pg_verifybackup"), &[args, &[backup.to_str().unwrap()]].concat());
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&[]), (Some(0), String::new()));
    symlink(".", backup.join("loop")).unwrap();
    fs::create_dir(backup.join("closed")).unwrap();
    assert!(Command::new("mkfifo").arg(backup.join("pipe")).status().unwrap().success());
    let (status, stderr) = run(&[]);
    let whole = backup.display();
    let expected = [
        format!("pg_verifybackup: error: could not open directory \"{whole}/loop\": it contains a link to itself\n"),
        "pg_verifybackup: error: \"pipe\" is not a regular file or directory\n".to_owned(),
    ];
    assert_eq!((status, stderr), (Some(1), expected.concat()));
    let pipe = backup.join("pipe");
    let (status, stderr) = run(&["-m", pipe.to_str().unwrap()]);
    assert_eq!(
        (status, stderr),
        (Some(1), format!("pg_verifybackup: error: could not open file \"{}\": not a regular file\n", pipe.display()))
    );
}

/// A manifest of version 2, as servers from 17 on write it, is that of one cluster.
#[test]
fn the_cluster_in_pg_control_is_that_of_the_manifest() {
    let Some(postgres) = Postgres::find_or_skip(None, "the_cluster_in_pg_control_is_that_of_the_manifest") else { return };
    let pair = Pair::new(postgres);
    let identifier = pair.server.sql("SELECT system_identifier FROM pg_control_system()").unwrap();
    let manifest = pair.manifest();
    let files = manifest.find("\"Files\"").unwrap();
    let path = pair.backup.join("backup_manifest");
    let verify = |identifier: &str, args: &[&str]| {
        let field = if identifier.is_empty() { String::new() } else { format!("\"System-Identifier\": {identifier},\n") };
        let head = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n";
        fs::write(&path, sealed(&[head, &field, &manifest[files..]].concat())).unwrap();
        let args = [args, &[pair.backup.to_str().unwrap()]].concat();
        let output = super::run(&pair.bin.path().join("pg_verifybackup"), &args);
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let control = pair.backup.join("global/pg_control");
    let refused = |found: &str| {
        let place = control.display();
        let text = format!("{place}: manifest system identifier is {found}, but control file has {identifier}");
        (Some(1), format!("pg_verifybackup: error: {text}\n"))
    };
    assert_eq!(verify(&identifier, &[]), (Some(0), String::new()));
    assert_eq!(verify("1", &[]), refused("1"));
    assert_eq!(verify("", &["-n"]), refused("0"));
    assert_eq!(verify("1", &["-i", "global/pg_control"]), (Some(0), String::new()));
    let bytes = fs::read(&control).unwrap();
    let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut changed = bytes.clone();
        change(&mut changed);
        fs::write(&control, changed).unwrap();
        let said = verify(&identifier, &["-s", "-n"]);
        fs::write(&control, &bytes).unwrap();
        (said.0, said.1.replace(control.to_str().unwrap(), "pg_control"))
    };
    let error = |text: &str| (Some(1), format!("pg_verifybackup: error: {text}\n"));
    assert_eq!(wrong(&|bytes| bytes[100] ^= 1), error("pg_control: CRC is incorrect"));
    assert_eq!(wrong(&|bytes| bytes[8..12].copy_from_slice(&[9; 4])), error("pg_control: unexpected control file version"));
    let (status, stderr) = wrong(&|bytes| bytes.truncate(100));
    assert!(status == Some(1) && stderr.ends_with("could not read file \"pg_control\": read only 100 bytes\n"), "{stderr}");

    // pgwal's own command judges alike.
    let own = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
        let output = command.args(["basebackup", "--verify-only", "-D"]).arg(&pair.backup).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    verify("1", &[]);
    let (status, stderr) = own(&[]);
    assert!(status == Some(1) && stderr.contains("but the manifest has 1: it is that of another cluster"), "{stderr}");
    assert_eq!(own(&["--ignore", "global/pg_control"]).0, Some(0));
    verify(&identifier, &[]);
    assert_eq!(own(&[]).0, Some(0));
    fs::write(pair.backup.join("PG_VERSION"), "qq\n").unwrap();
    fs::remove_file(pair.backup.join("pg_ident.conf")).unwrap();
    let (status, stderr) = own(&[]);
    assert!(status == Some(1) && stderr.contains("PG_VERSION") && stderr.contains("pg_ident.conf"), "{stderr}");
    let (status, stderr) = own(&["--exit-on-error"]);
    assert!(status == Some(1) && !stderr.contains("PG_VERSION") && stderr.contains("pg_ident.conf"), "{stderr}");
    assert_eq!(own(&["--ignore", "pg_ident.conf", "--skip-checksums"]).0, Some(0));
    let (elsewhere, wal) = (pair.backup.with_file_name("manifest"), pair.backup.with_file_name("wal"));
    fs::rename(&path, &elsewhere).unwrap();
    fs::rename(pair.backup.join("pg_wal"), &wal).unwrap();
    let usual = ["--ignore", "pg_ident.conf", "--skip-checksums"];
    assert_eq!(own(&[&usual[..], &["-X", "none"]].concat()).0, Some(1), "a backup without a manifest is no success");
    let named = [&usual[..], &["--manifest-path", elsewhere.to_str().unwrap()]].concat();
    assert_eq!(own(&named).0, Some(1), "nor one without its WAL");
    assert_eq!(own(&[&named[..], &["--wal-directory", wal.to_str().unwrap()]].concat()).0, Some(0));
    assert_eq!(own(&[&named[..], &["-X", "none"]].concat()).0, Some(0));
}
