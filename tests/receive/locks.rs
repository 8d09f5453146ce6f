//! One receiver at a time in a directory, and what else may be there.

use std::os::unix::fs::MetadataExt;

use super::*;

#[test]
fn a_second_receiver_is_kept_out_and_told_who_is_there() {
    let Some((postgres, server)) = server("receive, locks", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let dir = TempDir::new().unwrap();
    let first = Running::start(receive(&server, dir.path(), ["-Z", "gzip"]));
    wait_until("the receiver", || caught_up(&server));
    let holder = first.child.id();
    // Whatever the second one compresses, wherever it receives from, and by whatever name it knows the directory.
    let link = TempDir::new().unwrap().path().join("link");
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink(dir.path(), &link).unwrap();
    for (conninfo, path, args) in [
        (conninfo(&server), dir.path(), &["-Z", "gzip"][..]),
        (conninfo(&server), link.as_path(), &["-Z", "none"]),
        ("host=/nowhere".to_owned(), dir.path(), &["--no-loop"]),
    ] {
        let (status, said) = Running::start(receive_from(&conninfo, path, args)).end();
        let expected = format!("pgwal: another receiver is writing into \"{}\": process {holder} on host \"", path.display());
        assert_eq!((status, said.starts_with(&expected), said.lines().count()), (Some(1), true, 1), "{said}");
    }
    // Killed, it leaves a file that says nothing any more.
    signal(&first.child, "-KILL");
    assert_eq!(first.end().0, None);
    assert!(dir.path().join(".pgwal-receive.lock").exists());
    work(&server, 8000);
    // pg_receivewal, whose files are the same, and `verify` pass over it.
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let at = server.sql("SELECT pg_current_wal_lsn() - 8").unwrap();
    let mut command = Command::new(postgres.program("pg_receivewal"));
    command.arg("-D").arg(dir.path()).args(["-Z", "1", "-E", &at, "--no-loop", "-U", "postgres", "-h"]).arg(server.socket());
    let (status, said) = Running::start(command).end();
    assert_eq!(status, Some(0), "{said}");
    assert!(dir.path().join(format!("{end}.gz")).exists(), "{said}");
    verified(dir.path());
    let next = Running::start(receive(&server, dir.path(), ["-Z", "gzip"]));
    wait_until("the next receiver", || caught_up(&server));
    let (status, said) = next.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");
    assert!(!dir.path().join(".pgwal-receive.lock").exists());
    assert!(same_as_the_server(&server, dir.path()) > 1);
    verified(dir.path());
}

#[test]
fn what_is_longer_than_a_segment_is_left_alone() {
    let Some((_, server)) = server("receive, a long segment", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    work(&server, 8000);
    let newest = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let long = [fs::read(server.wal().join(&newest)).unwrap(), b"more".to_vec()].concat();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(format!("{newest}.partial"));
    fs::write(&path, &long).unwrap();
    let inode = path.metadata().unwrap().ino();
    for on_damage in ["stop", "warn"] {
        let (status, said) = Running::start(receive(&server, dir.path(), ["--on-damage", on_damage])).end();
        assert_eq!(status, Some(1), "{said}");
        assert!(
            said.contains("the WAL in the directory is damaged: ") && said.contains(": 1048580 bytes: a segment has 1048576"),
            "{said}"
        );
        assert!(fs::read(&path).unwrap() == long && path.metadata().unwrap().ino() == inode);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

/// What a server writes there itself is not replaced, with or without a link to it.
#[test]
fn a_servers_own_directory_is_refused() {
    let Some((_, server)) = server("receive, pg_wal", "") else { return };
    let link = TempDir::new().unwrap();
    let link = link.path().join("archive");
    std::os::unix::fs::symlink(server.wal(), &link).unwrap();
    for dir in [server.wal(), link] {
        let (status, said) = Running::start(receive(&server, &dir, ["--no-loop"])).end();
        let expected =
            format!("pgwal: \"{}\" is the pg_wal of a server, which writes its own WAL there (it has archive_status)\n", dir.display());
        assert_eq!((status, said), (Some(1), expected));
        assert!(!dir.join(".pgwal-receive.lock").exists());
    }
}

/// Links under the names of our own files lead nowhere, whoever put them there.
#[test]
fn links_in_the_place_of_our_files_are_not_followed() {
    let Some((_, server)) = server("receive, links", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let outside = TempDir::new().unwrap();
    let victim = outside.path().join("victim");
    let link = |path: PathBuf, target: &Path| std::os::unix::fs::symlink(target, path).unwrap();
    // The lock: refused, and nothing is made where it leads.
    let dir = TempDir::new().unwrap();
    link(dir.path().join(".pgwal-receive.lock"), &victim);
    let (status, said) = Running::start(receive(&server, dir.path(), ["--no-loop"])).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(".pgwal-receive.lock\": Too many levels of symbolic links"), "{said}");
    assert!(!victim.exists());
    fs::remove_file(dir.path().join(".pgwal-receive.lock")).unwrap();
    // What is written anew after a start.
    let first = Running::start(receive(&server, dir.path(), [""; 0]));
    work(&server, 100);
    wait_until("a segment", || caught_up(&server) && files(dir.path()).iter().any(|name| name.ends_with(".partial")));
    assert_eq!(first.stop_by("-INT").0, Some(0));
    fs::write(&victim, "precious").unwrap();
    let partial = files(dir.path()).into_iter().find(|name| name.ends_with(".partial")).unwrap();
    link(dir.path().join(format!("{partial}.again")), &victim);
    let next = Running::start(receive(&server, dir.path(), [""; 0]));
    wait_until("the receiver", || caught_up(&server));
    assert_eq!(next.stop_by("-INT").0, Some(0));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    assert!(files(dir.path()).iter().all(|name| !fs::symlink_metadata(dir.path().join(name)).unwrap().is_symlink()));
}

/// Names of the files of a directory.
fn files(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// A pipe under the name of a segment is no segment, and not waited for.
#[test]
fn a_pipe_in_the_directory_is_passed_over() {
    let Some((_, server)) = server("receive, a pipe", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    for name in ["0000000100000000000000F0", "0000000100000000000000F0.partial", "0000000100000000000000F0.gz"] {
        let dir = TempDir::new().unwrap();
        assert!(Command::new("mkfifo").arg(dir.path().join(name)).status().unwrap().success());
        let running = Running::start(receive(&server, dir.path(), [""; 0]));
        work(&server, 100);
        wait_until("the receiver", || caught_up(&server));
        assert_eq!(running.stop_by("-TERM").0, Some(0), "{name}");
    }
}

/// What is in the way at the start stays there: it is said at once, and not waited for.
#[test]
fn what_may_not_be_opened_ends_it_at_once() {
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    type Make = fn(&Path);
    let lock = |dir: &Path| dir.join(".pgwal-receive.lock");
    let cases: [(&str, Make, &str); 3] = [
        ("a directory", |lock| fs::create_dir(lock).unwrap(), "Is a directory (os error 21)"),
        ("a FIFO", |lock| assert!(Command::new("mkfifo").arg(lock).status().unwrap().success()), "not a regular file"),
        // To root, no permission is denied.
        ("somebody else's", |lock| fs::write(lock, "1 elsewhere\n").unwrap(), "Permission denied (os error 13)"),
    ];
    for (what, make, problem) in cases {
        let dir = TempDir::new().unwrap();
        make(&lock(dir.path()));
        let mut command = receive_from("host=/nowhere", dir.path(), [""; 0]);
        if problem.starts_with("Permission") {
            if !is_root {
                continue;
            }
            let program = TempDir::new().unwrap();
            let pgwal = program.path().join("pgwal");
            fs::copy(env!("CARGO_BIN_EXE_pgwal"), &pgwal).unwrap();
            assert!(Command::new("chown").arg("postgres").args([program.path(), dir.path()]).status().unwrap().success());
            command = Command::new("runuser");
            command
                .args(["-u", "postgres", "--"])
                .arg(pgwal)
                .args(["receive", "-d", "host=/nowhere", "-D"])
                .arg(dir.path())
                .current_dir("/");
            let (status, said) = Running::start(command).end();
            assert_eq!((status, said.contains(problem) && !said.contains("trying again")), (Some(1), true), "{what}: {said}");
            continue;
        }
        let (status, said) = Running::start(command).end();
        assert!(status == Some(1) && said.contains(".pgwal-receive.lock\": ") && said.contains(problem), "{what}: {said}");
        assert!(!said.contains("trying again"), "{what}: {said}");
    }
}
