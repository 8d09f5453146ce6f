//! pgwal under the names of PostgreSQL's programs: what all of them have in common.
#![cfg(unix)]

mod streaming;
mod verifybackup;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pgwal_testkit::server::Postgres;

/// Programs that pgwal stands in for.
const PROGRAMS: &[&str] = &["pg_basebackup", "pg_receivewal", "pg_verifybackup", "pg_waldump"];

/// A directory with pgwal under all of its names.
fn bin() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    PROGRAMS.iter().for_each(|name| symlink(env!("CARGO_BIN_EXE_pgwal"), dir.path().join(name)).unwrap());
    dir
}

fn run(program: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(args).env_remove("PGWAL_POSTGRES_VERSION").env_remove("PG_COLOR");
    command.output().unwrap()
}

fn script(path: PathBuf, text: &str) {
    // By another process: a program of another test's that is started meanwhile would keep the file open for writing, and what is open for
    // writing cannot be run.
    let source = path.with_extension("text");
    fs::write(&source, text).unwrap();
    assert!(Command::new("install").args(["-m", "755"]).args([&source, &path]).status().unwrap().success());
    fs::remove_file(source).unwrap();
}

#[test]
fn help_fits_and_versions_have_the_form_that_programs_look_for() {
    let bin = bin();
    for name in PROGRAMS {
        for option in ["--help", "-?"] {
            let output = run(&bin.path().join(name), &[option]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(output.status.success() && output.stderr.is_empty(), "{name} {option}");
            assert!(text.starts_with(&format!("{name} (pgwal) ")), "{text}");
            assert_eq!(text.lines().find(|line| line.len() > 95), None, "{name}: longer than PostgreSQL's own tests allow");
        }
        let own = env!("CARGO_PKG_VERSION");
        let version = |output: Output| String::from_utf8(output.stdout).unwrap();
        let expected = |release: &str| format!("{name} (PostgreSQL) {release}\npgwal {own}, standing in for it\n");
        assert_eq!(version(run(&bin.path().join(name), &["--version"])), expected("18"));
        let set = Command::new(bin.path().join(name)).arg("-V").env("PGWAL_POSTGRES_VERSION", "16.9").output().unwrap();
        assert_eq!(version(set), expected("16.9"));
        let nonsense = Command::new(bin.path().join(name)).arg("-V").env("PGWAL_POSTGRES_VERSION", "x\ny").output().unwrap();
        assert_eq!(version(nonsense), expected("18"));

        // The release of the programs beside it, also where only PATH says where it is.
        script(bin.path().join("psql"), "#!/bin/sh\necho 'psql (PostgreSQL) 14.3 (Debian 14.3-1)'\necho more\n");
        assert_eq!(version(run(&bin.path().join(name), &["-V"])), expected("14.3 (Debian 14.3-1)"));
        let path = std::env::join_paths([bin.path(), Path::new("/usr/bin"), Path::new("/bin")]).unwrap();
        let found = Command::new("sh").args(["-c", &format!("{name} -V")]).env("PATH", path).output().unwrap();
        assert_eq!(version(found), expected("14.3 (Debian 14.3-1)"));

        // A script that runs us in turn is asked once.
        script(bin.path().join("psql"), &format!("#!/bin/sh\nexec '{}' \"$@\"\n", bin.path().join(name).display()));
        assert_eq!(version(run(&bin.path().join(name), &["-V"])), expected("18"));
        fs::remove_file(bin.path().join("psql")).unwrap();
    }
}

#[test]
fn wrong_options_are_answered_as_by_getopt() {
    let bin = bin();
    for name in PROGRAMS {
        let program = bin.path().join(name);
        let output = run(&program, &["--not-a-valid-option"]);
        let expected = format!(
            "{}: unrecognized option '--not-a-valid-option'\n{name}: hint: Try \"{name} --help\" for more information.\n",
            program.display()
        );
        assert_eq!((String::from_utf8(output.stderr).unwrap(), output.status.code()), (expected, Some(1)));
    }
}

/// The real programs do not look whether their output was written, and scripts know them so; but here it is said.
#[test]
fn output_that_cannot_be_written_does_not_change_the_exit_status() {
    let bin = bin();
    let real = Postgres::find_or_skip(None, "output_that_cannot_be_written_does_not_change_the_exit_status");
    for name in PROGRAMS {
        for option in ["--help", "--version", "--nonsense"] {
            let status = |program: &Path, to: &str| {
                let mut command = Command::new("sh");
                command.args(["-c", &format!("exec {to}; exec \"$0\" \"$1\"")]).arg(program).arg(option);
                command.output().unwrap()
            };
            for to in [">/dev/full", ">/dev/full 2>&1", "2>/dev/full", ">&-", "2>&-"] {
                let ours = status(&bin.path().join(name), to);
                if let Some(real) = &real {
                    assert_eq!(ours.status, status(&real.program(name), to).status, "{name} {option} {to}");
                }
                let warning = format!("{name}: warning: could not write to standard output: No space left on device\n");
                let is_told = String::from_utf8(ours.stderr).unwrap() == warning;
                assert_eq!(is_told, to == ">/dev/full" && option != "--nonsense", "{name} {option} {to}");
            }
        }
    }
}

/// The real pg_verifybackup looks for a pg_waldump of its own release beside it, and takes ours.
#[test]
fn the_real_pg_verifybackup_runs_our_pg_waldump() {
    let Some(postgres) = Postgres::find_or_skip(None, "the_real_pg_verifybackup_runs_our_pg_waldump") else { return };
    let server = postgres.start(&[], "max_wal_senders = 4\nwal_level = replica").unwrap();
    let backup = server.dir().join("backup");
    server.client("pg_basebackup", ["-D", backup.to_str().unwrap(), "-c", "fast", "--no-sync"]).unwrap();
    let bin = bin();
    // A copy: it looks where it really is.
    let verifybackup = bin.path().join("real_verifybackup");
    fs::copy(postgres.program("pg_verifybackup"), &verifybackup).unwrap();
    symlink(postgres.program("pg_controldata"), bin.path().join("pg_controldata")).unwrap();
    let output = run(&verifybackup, &[backup.to_str().unwrap()]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!((String::from_utf8_lossy(&output.stdout).as_ref(), output.status.code()), ("backup successfully verified\n", Some(0)));
    let segment = fs::read_dir(backup.join("pg_wal")).unwrap().flatten().find(|entry| entry.file_name().len() == 24).unwrap().path();
    let bytes = fs::read(&segment).unwrap();
    fs::write(&segment, vec![b'w'; bytes.len()]).unwrap();
    let output = run(&verifybackup, &[backup.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: WAL parsing failed for timeline 1\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(1));
}

/// Names and arguments may hold anything; none of it steers a terminal.
#[test]
fn nothing_that_is_said_steers_the_terminal() {
    let bin = bin();
    let escape = "\u{1b}]0;title\u{7}\u{9b}2J\n";
    let dir = tempfile::tempdir().unwrap();
    let backup = dir.path().join(escape);
    fs::create_dir(&backup).unwrap();
    let in_backup = backup.to_str().unwrap();
    fs::write(backup.join("backup_manifest"), "{}").unwrap();
    let fake = format!("host={escape}");
    let cases: [(&str, &[&str]); 15] = [
        ("pg_verifybackup", &[in_backup]),
        ("pg_verifybackup", &["-m", escape, in_backup]),
        ("pg_verifybackup", &[in_backup, escape]),
        ("pg_verifybackup", &["-F", escape, in_backup]),
        ("pg_verifybackup", &[&format!("--{escape}")]),
        ("pg_verifybackup", &[escape]),
        ("pg_basebackup", &["-D", "b", escape]),
        ("pg_basebackup", &["-D", "b", "-F", escape]),
        ("pg_basebackup", &["-D", "b", "-d", escape]),
        ("pg_basebackup", &["-D", "b", "-d", &fake]),
        ("pg_basebackup", &["-D", "b", "-T", escape]),
        ("pg_receivewal", &["-D", escape]),
        ("pg_receivewal", &["-D", "/tmp", "-E", escape]),
        ("pg_receivewal", &["-D", "/tmp", "-n", "-d", &fake]),
        ("pg_receivewal", &[&format!("--{escape}=1")]),
    ];
    for (name, args) in cases {
        let output = run(&bin.path().join(name), args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{name} {args:?}: {said}");
        assert!(!said.is_empty() && !said.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{name} {args:?}: {said:?}");
    }
    // Names of files in a backup.
    fs::write(backup.join("backup_manifest"), manifest()).unwrap();
    fs::write(backup.join(escape), "x").unwrap();
    fs::write(backup.join(std::ffi::OsStr::from_bytes(b"\x9b2J")), "x").unwrap();
    let output = run(&bin.path().join("pg_verifybackup"), &["-n", in_backup]);
    let shown = "\\x1b]0;title\\x07\\u{9b}2J\\n";
    let expected = [format!("\"{shown}\""), "\"\\x9b2J\"".to_owned()]
        .map(|name| format!("pg_verifybackup: error: {name} is present on disk but not in the manifest\n"));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected.concat());
}

/// A manifest of no files.
fn manifest() -> String {
    use sha2::Digest;
    let head = "{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n],\n\"WAL-Ranges\": [\n],\n";
    let digits: String = sha2::Sha256::digest(head).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{head}\"Manifest-Checksum\": \"{digits}\"}}\n")
}

/// The real program asks how long a manifest is, and a pipe or a device has no length.
#[test]
fn a_manifest_that_is_no_file_is_answered_as_by_the_real_program() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "a_manifest_that_is_no_file_is_answered_as_by_the_real_program") else { return };
    let (bin, dir) = (bin(), tempfile::tempdir().unwrap());
    symlink(postgres.program("pg_controldata"), bin.path().join("pg_controldata")).unwrap();
    for manifest in ["/dev/null", "/dev/zero"] {
        let args = ["-n", "-m", manifest, dir.path().to_str().unwrap()];
        let [real, ours] = [postgres.program("pg_verifybackup"), bin.path().join("pg_verifybackup")].map(|program| run(&program, &args));
        assert_eq!((ours.status, String::from_utf8(ours.stderr)), (real.status, String::from_utf8(real.stderr)), "{manifest}");
    }
}
