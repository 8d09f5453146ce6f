//! Disks that are full and directories that are gone or closed: it says so, keeps what it has, and goes on by itself.

use super::*;

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// A file system of 3 MB, gone with the test.
struct Small(TempDir);

impl Small {
    fn mount() -> Option<Small> {
        let dir = TempDir::new().unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=3m", "pgwal-test"]).arg(dir.path())).then(|| Small(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("-l").arg(self.0.path()));
    }
}

/// Goes on by itself, to the end of what the server has, and nothing is missing.
#[track_caller]
fn goes_on(server: &Server, dir: &Path, running: Running) {
    work(server, 1000);
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.join(&end).exists());
    let (status, said) = running.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");
    assert!(same_as_the_server(server, dir) > 2, "{said}");
    verified(dir);
}

#[test]
fn a_full_disk_is_waited_for() {
    let Some((_, server)) = server("receive, full disk", "") else { return };
    let Some(small) = Small::mount() else {
        return eprintln!("SKIPPED receive, full disk: no file system can be mounted here; a limit on the size of files is tested");
    };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = small.0.path();
    let running = Running::start(receive(&server, dir, ["-S", "s", "--create-slot", "--status-interval=1"]));
    running.wait_for_start();
    work(&server, 20_000);
    running.wait_for("No space left on device (os error 28); trying again in ");
    assert!(running.said().contains(&format!("could not reserve room for \"{}", dir.display())), "{}", running.said());
    let slot = "SELECT restart_lsn < pg_current_wal_lsn() - 1000000 FROM pg_replication_slots";
    assert_eq!(server.sql(slot).unwrap(), "t", "what is not on disk is not acknowledged");
    assert!(run(Command::new("mount").args(["-o", "remount,size=200m"]).arg(dir)));
    goes_on(&server, dir, running);

    // Compressed, it is full while it writes; told to stop, it says that it could not.
    let small = Small::mount().unwrap();
    let running = Running::start(receive(&server, small.0.path(), ["-S", "s", "-Z", "lz4"]));
    let noise =
        "INSERT INTO t SELECT i, string_agg(md5(random()::text), '') FROM generate_series(1, 400) i, generate_series(1, 1000) j GROUP BY i";
    server.sql(noise).unwrap();
    running.wait_for("No space left on device (os error 28)");
    assert!(!running.said().contains("reserve"), "{}", running.said());
    let whole = finished(small.0.path());
    assert_eq!(same_as_the_server(&server, small.0.path()), whole.len());
    let (status, said) = Running::start(receive(&server, small.0.path(), ["-S", "s", "-Z", "lz4", "--no-loop"])).end();
    assert_eq!(status, Some(1), "{said}");
}

/// On a full disk what is whole and on disk is acknowledged, also where nothing more can be written, not even a history file.
#[test]
fn a_full_disk_keeps_no_whole_segment_from_being_acknowledged() {
    let Some((_, primary)) = server("receive, full disk, two timelines", "") else { return };
    let Some(small) = Small::mount() else {
        return eprintln!("SKIPPED receive, full disk, two timelines: no file system can be mounted here");
    };
    primary.sql("CREATE TABLE t (i int, x text)").unwrap();
    let server = primary.standby().unwrap();
    server.sql("SELECT pg_promote()").unwrap();
    wait_until("the promotion", || server.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    let dir = small.0.path();
    let running = Running::start(receive(&server, dir, ["-S", "s", "--create-slot"]));
    running.wait_for_start();
    work(&server, 20_000);
    running.wait_for("No space left on device (os error 28); trying again in ");
    // There is no room for a byte.
    let _ = fs::write(dir.join("filler"), vec![1; 3 << 20]);
    let newest = finished(dir).into_iter().next_back().unwrap();
    let acknowledged = format!(
        "SELECT restart_lsn + 16384 >= ('0/' || lpad(to_hex((('x' || right('{newest}', 8))::bit(32)::int + 1) << 20), 8, '0'))::pg_lsn \
         FROM pg_replication_slots"
    );
    wait_until("what is whole", || server.sql(&acknowledged).unwrap() == "t");
    let usual = |name: &str| name.ends_with(".history") || name == ".pgwal-receive.lock" || name == "filler" || name.len() == 24;
    let left = || -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| !usual(name)).collect()
    };
    assert!(running.stop_by("-INT").0.is_some());
    assert_eq!(left(), [""; 0], "nothing half is left");
    // One that is started anew has to put on disk what is there, and has no room for that, either.
    let running = Running::start(receive(&server, dir, ["-S", "s"]));
    running.wait_for("could not reserve room for \"");
    running.wait_for("No space left on device (os error 28); trying again in ");
    fs::remove_file(dir.join("filler")).unwrap();
    assert!(run(Command::new("mount").args(["-o", "remount,size=200m"]).arg(dir)));
    goes_on(&server, dir, running);
    // The segment that is being received may have begun.
    assert!(left().iter().all(|name| name.ends_with(".partial")) && left().len() <= 1, "{:?}", left());
}

#[test]
fn a_limit_on_the_size_of_files_is_waited_for() {
    let Some((_, server)) = server("receive, limit", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    let running = Running::start(receive(&server, dir.path(), ["-S", "s", "--create-slot"]));
    running.wait_for_start();
    work(&server, 5000);
    wait_until("the receiver", || caught_up(&server));
    let limit = |size: &str| {
        assert!(run(Command::new("prlimit").args([&format!("--fsize={size}"), "--pid", &running.child.id().to_string()])));
    };
    limit("600000:unlimited");
    work(&server, 8000);
    running.wait_for("File too large (os error 27); trying again in ");
    limit("unlimited:unlimited");
    goes_on(&server, dir.path(), running);
}

#[test]
fn a_directory_that_is_away_is_waited_for() {
    let Some((_, server)) = server("receive, directory away", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let parent = TempDir::new().unwrap();
    let (dir, away) = (parent.path().join("wal"), parent.path().join("away"));
    fs::create_dir(&dir).unwrap();
    let running = Running::start(receive(&server, &dir, ["-S", "s", "--create-slot"]));
    running.wait_for_start();
    work(&server, 5000);
    wait_until("the receiver", || caught_up(&server));
    fs::rename(&dir, &away).unwrap();
    fs::write(&dir, b"a file").unwrap();
    work(&server, 8000);
    running.wait_for("(os error 20); trying again in ");
    fs::remove_file(&dir).unwrap();
    running.wait_for("(os error 2); trying again in ");
    fs::rename(&away, &dir).unwrap();
    goes_on(&server, &dir, running);
}

#[test]
fn files_that_are_taken_away_leave_no_gap() {
    let Some((_, server)) = server("receive, files away", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let (dir, archive) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let running = Running::start(receive(&server, dir.path(), [""; 0]));
    running.wait_for_start();
    work(&server, 8000);
    wait_until("the receiver", || caught_up(&server));
    server.control("stop").unwrap();
    running.wait_for("trying again in ");
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".partial") {
            fs::copy(&path, archive.path().join(name)).unwrap();
        }
        fs::remove_file(&path).unwrap();
    }
    server.control("start").unwrap();
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    work(&server, 8000);
    server.sql("SELECT pg_switch_wal()").unwrap();
    wait_until("the segment", || dir.path().join(&end).exists());
    let (status, said) = running.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");
    same_as_the_server(&server, dir.path());
    for name in finished(dir.path()) {
        assert!(!archive.path().join(&name).exists(), "{name}: twice");
        fs::copy(dir.path().join(&name), archive.path().join(&name)).unwrap();
    }
    // It would say that a segment is missing.
    verified(archive.path());
}

#[test]
fn a_directory_that_may_not_be_written_to_is_waited_for() {
    let Some((postgres, server)) = server("receive, read-only", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    // Permissions say nothing to root: it runs as the user of the server, where that can find the program.
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    let program = TempDir::new().unwrap();
    let args = ["receive", "-S", "s", "--create-slot", "-d", &conninfo(&server), "-D"];
    let mut command = if is_root {
        let pgwal = program.path().join("pgwal");
        fs::copy(env!("CARGO_BIN_EXE_pgwal"), &pgwal).unwrap();
        assert!(run(Command::new("chown").args(["-R", "postgres"]).args([program.path(), dir.path()])));
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(pgwal);
        command
    } else {
        Command::new(env!("CARGO_BIN_EXE_pgwal"))
    };
    command.args(args).arg(dir.path()).current_dir("/");
    let running = Running::start(command);
    running.wait_for_start();
    work(&server, 2000);
    wait_until("the receiver", || caught_up(&server));
    assert!(run(Command::new("chmod").arg("555").arg(dir.path())));
    work(&server, 8000);
    running.wait_for("Permission denied (os error 13); trying again in ");
    assert!(run(Command::new("chmod").arg("755").arg(dir.path())));
    drop(postgres);
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the last segment", || dir.path().join(&end).exists());
    // runuser passes it on.
    let (status, said) = running.stop_by("-TERM");
    assert!(status == Some(0) || is_root, "{status:?}: {said}");
    for entry in fs::read_dir(dir.path()).unwrap() {
        let mode = entry.unwrap().metadata().unwrap().permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600, "as pg_receivewal's");
    }
    assert!(same_as_the_server(&server, dir.path()) > 1, "{said}");
    verified(dir.path());
}
