//! Signals in the middle of a backup: whichever, and however often, nothing half is left.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use pgwal_testkit::server::PATIENCE;

use super::errors::is_clean;
use super::{basebackup, mapped, server, temporary, wait_until};

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).stderr(Stdio::null()).status().is_ok());
}

/// The same command with the usual effect of signals: who runs the tests under nohup has SIGHUP ignored.
fn with_usual_signals(command: &Command) -> Command {
    let mut env = Command::new("env");
    env.arg("--default-signal=HUP,INT,QUIT,TERM").arg(command.get_program()).args(command.get_args());
    env.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    env
}

/// Sends a signal again and again until it ends, as if somebody were in a great hurry; its status and what it says.
fn hurry(mut child: Child, name: &str) -> (Option<i32>, String) {
    let begin = Instant::now();
    let status = loop {
        signal(&child, name);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begin.elapsed() < PATIENCE, "it does not end");
    };
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    (status.code(), said)
}

#[test]
fn signals_without_end_leave_nothing_half() {
    let Some((_, server)) = server("basebackup, signals", &[]) else { return };
    // Many files, so that it takes a while to remove them.
    server.sql("DO $$ BEGIN FOR i IN 1..400 LOOP EXECUTE format('CREATE TABLE many%s (i int PRIMARY KEY)', i); END LOOP; END $$").unwrap();
    for (name, form) in [("-TERM", "plain"), ("-INT", "tar"), ("-HUP", "plain"), ("-QUIT", "tar")] {
        let dir = temporary();
        let path = |name: &str| dir.path().join(name);
        let (backup, space, wal) = (path("above/it/backup"), path("space"), path("wal/apart"));
        let mapping = mapped(&server, &space);
        let args = match form {
            "plain" => vec![mapping.as_str(), "--waldir", wal.to_str().unwrap()],
            _ => vec!["-F", "tar"],
        };
        let options = ["-r", "2048", "-C", "-S", "mine"];
        let child = with_usual_signals(&basebackup(&server, &backup, options.into_iter().chain(args))).spawn().unwrap();
        wait_until("files", || {
            backup.join("base/1").exists() || fs::metadata(backup.join("base.tar")).is_ok_and(|tar| tar.len() > 1_000_000)
        });
        let (status, said) = hurry(child, name);
        assert_eq!((status, said.as_str()), (Some(1), "pgwal: interrupted\n"), "{name}, {form}");
        let left: Vec<PathBuf> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert!(left.is_empty(), "{name}, {form}: {left:?}");
        assert_eq!(server.sql("SELECT count(*) FROM pg_replication_slots").unwrap(), "0", "{name}, {form}");
    }
    // A directory that was there stays, as it was.
    let dir = temporary();
    let backup = dir.path().join("backup");
    fs::create_dir(&backup).unwrap();
    let child = with_usual_signals(&basebackup(&server, &backup, ["-r", "2048", "-F", "tar"])).spawn().unwrap();
    wait_until("files", || backup.join("base.tar").exists());
    assert_eq!(hurry(child, "-TERM").0, Some(1));
    let mode = |path: &Path| std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).unwrap().permissions());
    assert!(is_clean(&backup) && mode(&backup) == mode(dir.path()), "{:o}", mode(&backup));
}

/// Under nohup, SIGHUP is nothing.
#[test]
fn a_hangup_that_is_ignored_stays_so() {
    let Some((_, server)) = server("basebackup, nohup", &[]) else { return };
    let (backup, space) = (server.dir().join("backup"), server.dir().join("space"));
    let taking = basebackup(&server, &backup, ["-r", "8192", &mapped(&server, &space)]);
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(taking.get_program()).args(taking.get_args()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    wait_until("files", || backup.join("base/1").exists());
    signal(&child, "-HUP");
    let ran = child.wait_with_output().unwrap();
    assert_eq!(ran.status.code(), Some(0), "{}", String::from_utf8_lossy(&ran.stderr));
    assert!(backup.join("backup_manifest").exists());
}
