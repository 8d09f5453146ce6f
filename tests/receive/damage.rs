//! Damage on its way, and in the directory.

use super::proxy::Proxy;
use super::*;

/// What [`work`] writes into each row.
const ROW: &[u8] = b"xxxxxxxxxxxxxxxx";

fn slot(server: &Server) -> String {
    server.sql("SELECT restart_lsn FROM pg_replication_slots").unwrap()
}

#[test]
fn damage_on_its_way_stops_it_with_the_place_or_is_never_acknowledged() {
    let Some((_, server)) = server("receive, damage", "wal_sender_timeout = 5s") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    let proxy = Proxy::new(&server);
    let dir = TempDir::new().unwrap();
    let args =
        |on_damage| ["-S", "s", "--create-slot", "--if-not-exists", "--status-interval=1", "--synchronous", "--on-damage", on_damage];
    let before = |lsn: &str, place: &str| server.sql(&format!("SELECT '{lsn}'::pg_lsn <= '{place}'::pg_lsn")).unwrap() == "t";

    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), args("stop")));
    wait_until("the receiver", || caught_up(&server));
    proxy.flip(ROW);
    work(&server, 5000);
    let (status, said) = running.end();
    assert_eq!(status, Some(1), "{said}");
    let place = said.lines().find_map(|line| line.strip_prefix("pgwal: the WAL that the server sent is damaged: ")).unwrap();
    // 000000010000000000000006:0x1ed28 (0/0061ED28): xl_crc: …
    let lsn = place.split(['(', ')']).nth(1).unwrap();
    assert!(place.starts_with("00000001") && place.contains("xl_crc"), "{place}");
    assert!(before(&slot(&server), lsn), "{} is acknowledged, and {place}", slot(&server));
    verified(dir.path());

    // Without the damage it goes on; then there is some that is written.
    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), args("warn")));
    wait_until("the receiver", || caught_up(&server));
    wait_until("the slot", || before(lsn, &slot(&server)));
    proxy.flip(ROW);
    work(&server, 5000);
    running.wait_for("the WAL that the server sent is damaged: ");
    let said = running.said();
    let lsn = said.split_once("is damaged: ").unwrap().1.split(['(', ')']).nth(1).unwrap();
    let end = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    wait_until("the segment with the damage", || dir.path().join(&end).exists());
    work(&server, 5000);
    wait_until("the receiver", || caught_up(&server));
    assert!(before(&slot(&server), lsn), "{} is acknowledged: {said}", slot(&server));
    // Also not on the next connection,
    server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication").unwrap();
    running.wait_for("trying again in ");
    work(&server, 10);
    wait_until("the receiver", || caught_up(&server));
    assert!(before(&slot(&server), lsn), "{} is acknowledged: {said}", slot(&server));
    assert_eq!(running.said().matches("damaged: ").count(), 1, "{}", running.said());
    let (status, said) = running.stop_by("-INT");
    assert_eq!(status, Some(0), "{said}");

    // nor by the next process, which finds it in the directory.
    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), args("warn")));
    running.wait_for("the WAL in the directory is damaged: ");
    wait_until("the receiver", || caught_up(&server));
    assert!(before(&slot(&server), lsn), "{} is acknowledged", slot(&server));
    // And it does not keep the server from stopping.
    server.control("stop").unwrap();
    server.control("start").unwrap();
    assert_eq!(running.stop_by("-INT").0, Some(0));
    let (status, said) = Running::start(receive_from(&proxy.conninfo(), dir.path(), args("stop"))).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("the WAL in the directory is damaged: ") && said.contains(lsn), "{said}");

    // Moved away, it is received again.
    let name = said.split("is damaged: ").nth(1).unwrap().get(..24).unwrap().to_owned();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_str().unwrap() >= name.as_str() {
            fs::remove_file(path).unwrap();
        }
    }
    let running = Running::start(receive_from(&proxy.conninfo(), dir.path(), args("stop")));
    wait_until("the receiver", || caught_up(&server));
    wait_until("the slot", || !before(&slot(&server), lsn));
    assert_eq!(running.stop_by("-INT").0, Some(0));
    assert!(same_as_the_server(&server, dir.path()) > 2);
    verified(dir.path());
}

#[test]
fn what_is_in_the_directory_must_fit() {
    let Some((postgres, server)) = server("receive, directory", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    work(&server, 8000);
    let newest = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let segment = fs::read(server.wal().join(&newest)).unwrap();
    work(&server, 8000);
    let run = |dir: &Path, more: &[&str]| {
        let ran = receive(&server, dir, ["--no-loop"].iter().chain(more)).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
    };

    // Damaged: where, and what to do. A segment of another size. Neither is touched.
    let dir = TempDir::new().unwrap();
    let mut damaged = segment.clone();
    // Not in a record that starts in the segment before, which is not there.
    let at = damaged.windows(ROW.len()).rposition(|window| window == ROW).unwrap();
    damaged[at] ^= 1;
    for (bytes, problem) in [(&damaged[..], "xl_crc"), (&segment[..500_000], "500000 bytes: expected 1048576")] {
        fs::write(dir.path().join(&newest), bytes).unwrap();
        let (status, said) = run(dir.path(), &[]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains("the WAL in the directory is damaged: ") && said.contains(&newest) && said.contains(problem), "{said}");
        assert!(said.contains("It is received again once this file and those behind it are moved away"), "{said}");
        assert!(fs::read(dir.path().join(&newest)).unwrap() == bytes && fs::read_dir(dir.path()).unwrap().count() == 1);
    }
    // Damaged and not whole: it is received again from there on.
    fs::remove_file(dir.path().join(&newest)).unwrap();
    fs::write(dir.path().join(format!("{newest}.partial")), &damaged).unwrap();
    let end = server.sql("SELECT pg_current_wal_lsn() - 8").unwrap();
    let (status, said) = run(dir.path(), &["--endpos", &end]);
    assert_eq!(status, Some(0), "{said}");
    assert!(same_as_the_server(&server, dir.path()) > 0);
    verified(dir.path());
    // Compressed from now on: the segment begins again.
    let (status, said) = run(dir.path(), &["--endpos", &end, "-Z", "zstd"]);
    assert_eq!(status, Some(0), "{said}");
    let last = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let (status, said) = run(dir.path(), &["-Z", "zstd", "--endpos", &server.sql("SELECT pg_current_wal_lsn() - 8").unwrap()]);
    assert_eq!(status, Some(0), "{said}");
    assert!(dir.path().join(format!("{last}.zst")).exists(), "{said}");
    same_as_the_server(&server, dir.path());

    // A newer timeline than the server's.
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join(format!("00000002{}", &newest[8..])), &segment).unwrap();
    let (status, said) = run(dir.path(), &[]);
    assert_eq!((status, said.as_str()), (Some(1), "pgwal: the WAL in the directory is of timeline 2, and the server is on timeline 1\n"));

    // Another cluster's.
    let other = postgres.start(&["--wal-segsize=1"], SETTINGS).unwrap();
    let name = other.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    for (file, args) in [(name.clone(), &[][..]), (format!("{name}.partial"), &[]), (format!("{name}.partial"), &["-Z", "gzip"])] {
        let dir = TempDir::new().unwrap();
        fs::copy(other.wal().join(&name), dir.path().join(file)).unwrap();
        let (status, said) = run(dir.path(), args);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.starts_with("pgwal: the WAL in the directory is of a cluster with system identifier "), "{said}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

/// What has the name of the newest segment and is something else is told as what it is, whatever its bytes look like.
#[test]
fn what_only_has_the_name_of_a_segment_is_told_as_what_it_is() {
    let Some((postgres, server)) = server("receive, names of segments", "") else { return };
    server.sql("CREATE TABLE t (i int, x text); SELECT pg_create_physical_replication_slot('s', true)").unwrap();
    work(&server, 8000);
    let name = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    work(&server, 10);
    let segment = fs::read(server.wal().join(&name)).unwrap();
    // Noise that would be another cluster's WAL if its first two bytes did not matter: the flag of a long header is set.
    let mut noise: Vec<u8> = (0..segment.len()).map(|at| (at * at % 251) as u8 | 2).collect();
    noise[..2].copy_from_slice(b"\xAB\xCD");
    let patched = |at: usize, bytes: &[u8]| {
        let mut copy = segment.clone();
        copy[at..at + bytes.len()].copy_from_slice(bytes);
        copy
    };
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &noise).unwrap();
    let packed = packed.finish().unwrap();
    let other_magic = pgwal::format::WalMagic::of(if postgres.major == 14 { 13 } else { 14 }).unwrap().0.to_le_bytes();
    let major = format!(
        "was written by PostgreSQL {}, but the server runs PostgreSQL {}",
        if postgres.major == 14 { 13 } else { 14 },
        postgres.major
    );
    let next = format!("{}{:08X}", &name[..16], u32::from_str_radix(&name[16..], 16).unwrap() + 1);
    let not_wal = "not a WAL segment: it starts with CDAB";
    for (file, content, problem) in [
        (name.clone(), noise.clone(), not_wal),
        (name.clone(), noise[..1000].to_vec(), not_wal),
        (format!("{name}.gz"), packed, not_wal),
        (format!("{name}.gz"), noise[..1000].to_vec(), not_wal),
        (name.clone(), Vec::new(), "empty, not a WAL segment"),
        (name.clone(), vec![0; segment.len()], "only zeroes: a segment that was allocated but never written"),
        (name.clone(), segment[..100].to_vec(), "100 bytes: expected 1048576"),
        (format!("{name}.partial"), noise.clone(), "which is not WAL; move it away"),
        (name.clone(), patched(0, &other_magic), &major),
        (format!("{name}.partial"), patched(0, &other_magic), &major),
        (name.clone(), patched(32, &(16u32 << 20).to_le_bytes()), "segments of 16777216 bytes: expected 1048576"),
        (name.clone(), patched(4, &[9]), "by another name"),
        (next, segment.clone(), "by another name"),
        (name.clone(), patched(24, &[0; 8]), "system identifier 0, and the server's is "),
    ] {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join(&file), &content).unwrap();
        let ran = receive(&server, dir.path(), ["--no-loop", "-S", "s"]).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{file}: {said}");
        assert!(
            said.contains(problem) && said.contains(&name[..16]) || problem.contains("identifier"),
            "{file}, expected {problem}: {said}"
        );
        assert!(said.contains("system identifier") == problem.contains("system identifier"), "{file}: {said}");
        assert!(fs::read(dir.path().join(&file)).unwrap() == content && fs::read_dir(dir.path()).unwrap().count() <= 2, "{file}");
    }
}

#[test]
fn wal_of_a_timeline_that_the_server_has_left_earlier_is_refused() {
    let Some((_, primary)) = server("receive, diverged", "") else { return };
    primary.sql("CREATE TABLE t (i int, x text)").unwrap();
    let standby = primary.standby().unwrap();
    standby.sql("SELECT pg_promote()").unwrap();
    wait_until("the promotion", || standby.sql("SELECT pg_is_in_recovery()").unwrap() == "f");
    // The old primary goes on, and so does its receiver.
    let dir = TempDir::new().unwrap();
    let end = primary.sql("SELECT pg_current_wal_lsn() + 2000000").unwrap();
    let running = Running::start(receive(&primary, dir.path(), ["--endpos", &end]));
    wait_for_streams(&primary, 1);
    work(&primary, 10_000);
    assert_eq!(running.end().0, Some(0));
    let (status, said) = Running::start(receive(&standby, dir.path(), [""; 0])).end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.starts_with("pgwal: the WAL in the directory goes to 0/"), "{said}");
    assert!(said.contains(" on timeline 1, and the server, which is on timeline 2, has left that at 0/"), "{said}");
}

/// A compressed segment whose last bytes are wrong, those of its checksum, is no good start.
#[test]
fn a_compressed_segment_with_a_wrong_checksum_is_not_taken_for_whole() {
    let Some((_, server)) = server("receive, a checksum of gzip", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    work(&server, 8000);
    let newest = server.sql("SELECT pg_walfile_name(pg_switch_wal())").unwrap();
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(format!("{newest}.gz"));
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &fs::read(server.wal().join(&newest)).unwrap()).unwrap();
    let mut packed = packed.finish().unwrap();
    let checksum = packed.len() - 8;
    packed[checksum] ^= 1;
    fs::write(&path, &packed).unwrap();
    let (status, said) = Running::start(receive(&server, dir.path(), ["--no-loop", "-Z", "gzip"])).end();
    assert!(status == Some(1) && said.contains("does not unpack: corrupt gzip stream does not have a matching checksum"), "{said}");
    // Nobody else takes it for good, either.
    let run = |args: &[&std::ffi::OsStr]| {
        let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(args).stdin(Stdio::null()).output().unwrap();
        (ran.status.code(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    for args in [
        &["dump".as_ref(), "-q".as_ref(), path.as_os_str()][..],
        &["verify".as_ref(), path.as_os_str()],
        &["stats".as_ref(), path.as_os_str()],
    ] {
        let (status, said) = run(args);
        assert!(status == Some(1) && said.contains("matching checksum"), "{args:?}: {said}");
    }
    packed[checksum] ^= 1;
    fs::write(&path, &packed).unwrap();
    assert_eq!(run(&["dump".as_ref(), "-q".as_ref(), path.as_os_str()]).0, Some(0));
}

/// Whoever checks an archive every hour must not be told of damage because a segment is being compressed into it.
#[test]
fn an_archive_that_is_received_compressed_has_no_findings() {
    let Some((_, server)) = server("receive, verified meanwhile", "") else { return };
    server.sql("CREATE TABLE t (i int, x text)").unwrap();
    for compression in ["gzip", "lz4", "zstd"] {
        let dir = TempDir::new().unwrap();
        let running = Running::start(receive(&server, dir.path(), ["-Z", compression]));
        for rows in [10, 8000, 10] {
            work(&server, rows);
            let is_begun =
                |entry: std::io::Result<fs::DirEntry>| entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "partial"));
            wait_until("a segment", || fs::read_dir(dir.path()).unwrap().any(is_begun));
            let run =
                |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_pgwal")).args(args).arg(dir.path()).stdin(Stdio::null()).output().unwrap();
            let ran = run(&["verify"]);
            assert_eq!(ran.status.code(), Some(0), "{compression}: {}", String::from_utf8_lossy(&ran.stdout));
        }
        assert_eq!(running.stop_by("-INT").0, Some(0));
        verified(dir.path());
    }
}
