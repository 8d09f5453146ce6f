//! Base backups from servers that misbehave.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pgwal_stream::backup::{BackupError, Destination, Form, ManifestOptions, Notice, Options, Packing, Slot, SyncMethod, WalMethod, take};
use pgwal_stream::compress::Compression;
use pgwal_stream::connection::{Connection, Mode};
use pgwal_stream::conninfo::{Config, Environment};
use pgwal_stream::message::FromBackup;
use tar::{Builder, EntryType, Header};

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// A result set of rows of text.
fn rows(columns: usize, rows: &[&[Option<&str>]]) -> Vec<u8> {
    let mut head = (columns as u16).to_be_bytes().to_vec();
    for _ in 0..columns {
        head.extend(b"c\0");
        head.extend([0; 18]);
    }
    let mut bytes = message(b'T', &head);
    for row in rows {
        let mut body = (row.len() as u16).to_be_bytes().to_vec();
        for value in *row {
            match value {
                Some(text) => {
                    body.extend((text.len() as u32).to_be_bytes());
                    body.extend(text.as_bytes());
                }
                None => body.extend((-1i32).to_be_bytes()),
            }
        }
        bytes.extend(message(b'D', &body));
    }
    bytes.extend(message(b'C', b"SELECT 1\0"));
    bytes
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// What a server says to the manifest that it is sent: before it comes, and after it.
struct Upload {
    begin: Vec<u8>,
    /// What has to come; `None`: nothing does.
    manifest: Option<Vec<u8>>,
    end: Vec<u8>,
}

/// The next client, after its startup message.
fn accept(listener: &TcpListener) -> TcpStream {
    let mut client = listener.accept().unwrap().0;
    let len = u32::from_be_bytes(read(&mut client, 4).unwrap().try_into().unwrap());
    read(&mut client, len as usize - 4).unwrap();
    client
}

fn read(client: &mut TcpStream, len: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    client.read_exact(&mut bytes).map(|()| bytes)
}

/// A server of 15 that answers BASE_BACKUP with these bytes, and then is gone.
fn server(backup: Vec<u8>) -> (Config, std::thread::JoinHandle<()>) {
    server_of(15, None, "BASE_BACKUP (LABEL 'l', ", backup)
}

/// A server of `major` that takes a manifest, and answers a command that begins with `command` with these bytes.
fn server_of(major: u8, upload: Option<Upload>, command: &'static str, backup: Vec<u8>) -> (Config, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let mut client = accept(&listener);
        let version = format!("server_version\0{major}.4\0");
        let let_in = [message(b'R', &[0; 4]), message(b'S', version.as_bytes()), message(b'K', &[0; 8]), ready()].concat();
        client.write_all(&let_in).unwrap();
        while let Ok(head) = read(&mut client, 5) {
            // Terminate.
            if head[0] == b'X' {
                return;
            }
            let len = u32::from_be_bytes(head[1..].try_into().unwrap());
            let Ok(body) = read(&mut client, len as usize - 4) else { return };
            // What comes of a COPY after its end.
            if b"dcf".contains(&head[0]) {
                continue;
            }
            let text = String::from_utf8(body).unwrap();
            let one = |value: &str| [rows(1, &[&[Some(value)]]), ready()].concat();
            let answer = match text.trim_end_matches('\0') {
                "IDENTIFY_SYSTEM" => [rows(4, &[&[Some("7"), Some("1"), Some("0/3000000"), None]]), ready()].concat(),
                "SHOW wal_segment_size" => one("16MB"),
                "SHOW wal_block_size" | "SHOW block_size" => one("8192"),
                "SHOW data_directory_mode" => one("0700"),
                "UPLOAD_MANIFEST" => {
                    let Upload { begin, manifest, end } = upload.as_ref().unwrap();
                    client.write_all(begin).unwrap();
                    let mut sent = Vec::new();
                    while manifest.is_some() {
                        let head = read(&mut client, 5).unwrap();
                        let len = u32::from_be_bytes(head[1..].try_into().unwrap());
                        let body = read(&mut client, len as usize - 4).unwrap();
                        match head[0] {
                            b'd' => sent.extend(body),
                            b'c' => break,
                            other => panic!("{other}"),
                        }
                    }
                    assert!(sent == manifest.clone().unwrap_or_default());
                    end.clone()
                }
                text => {
                    assert!(text.starts_with(command), "{text}");
                    // The client may have had enough of it before the end.
                    let _ = client.write_all(&backup);
                    return;
                }
            };
            client.write_all(&answer).unwrap();
        }
    });
    let env = Environment::new("me", Path::new("/nonexistent"));
    (Config::parse(&format!("host=127.0.0.1 port={port} sslmode=disable"), &env).unwrap(), thread)
}

fn options(dir: &Path) -> Options {
    Options {
        destination: Destination::Directory(dir.join("backup")),
        form: Form::Plain,
        wal: WalMethod::None,
        slot: Slot::None,
        slot_prefix: "pgwal_basebackup".to_owned(),
        wal_dir: None,
        tablespaces: vec![("/srv/apart".into(), dir.join("space"))],
        tablespaces_must_exist: true,
        incremental: None,
        status_interval: Duration::from_secs(10),
        packing: Packing::None,
        wal_packing: Compression::None,
        label: "l".to_owned(),
        fast: true,
        max_rate: None,
        estimate: false,
        verify_checksums: true,
        manifest: Some(ManifestOptions::default()),
        recovery: None,
        sync: SyncMethod::None,
        verify: true,
        keep_failed: false,
    }
}

/// The start of an answer: where the backup starts, and a tablespace besides the data directory.
fn begin() -> Vec<u8> {
    let start = rows(2, &[&[Some("0/2000028"), Some("1")]]);
    [start, rows(3, &[&[Some("16384"), Some("/srv/apart"), None], &[None, None, None]]), message(b'H', &[0, 0, 0])].concat()
}

fn sent(part: FromBackup<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    part.write(&mut body);
    message(b'd', &body)
}

fn archive(name: &str, tablespace: &str, bytes: &[u8]) -> Vec<u8> {
    let chunks = bytes.chunks(1000).map(|chunk| sent(FromBackup::Data(chunk)));
    [sent(FromBackup::Archive { name, tablespace })].into_iter().chain(chunks).flatten().collect()
}

fn end() -> Vec<u8> {
    [message(b'c', &[]), rows(2, &[&[Some("0/2000100"), Some("1")]]), ready()].concat()
}

/// An archive of entries: type, name, content or link.
fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_ustar();
        // As it comes, whatever it says.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o600);
        let is_file = *kind == EntryType::Regular;
        if *kind == EntryType::Directory {
            header.set_mode(0o700);
        } else if !is_file {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_size(if is_file { content.len() as u64 } else { 0 });
        header.set_cksum();
        builder.append(&header, if is_file { content.as_bytes() } else { b"" }).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What comes of a backup from a server that answers so; nothing may be left of it.
fn refused(answer: Vec<u8>, change: impl FnOnce(&mut Options)) -> BackupError {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("outside"), "as it was").unwrap();
    let (config, thread) = server(answer);
    let mut connection = Connection::connect(&config, Mode::Replication).unwrap();
    let mut options = options(dir.path());
    change(&mut options);
    let error = take(&mut connection, &config, &options, &Arc::new(AtomicBool::new(false)), &mut |_| {}).unwrap_err();
    drop(connection);
    thread.join().unwrap();
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["outside"], "{error}");
    assert_eq!(fs::read(dir.path().join("outside")).unwrap(), b"as it was");
    error
}

/// What comes of an incremental backup from a server that takes the manifest so.
fn incremental(major: u8, manifest: &[u8], upload: Upload) -> Result<(), BackupError> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("manifest");
    fs::write(&path, manifest).unwrap();
    let file = tar(&[(EntryType::Regular, "PG_VERSION", "17")]);
    let backup = [begin(), archive("base.tar", "", &file), end()].concat();
    let (config, thread) = server_of(major, Some(upload), "BASE_BACKUP (INCREMENTAL, LABEL 'l', ", backup);
    let mut connection = Connection::connect(&config, Mode::Replication).unwrap();
    let options = Options { incremental: Some(path), manifest: None, verify: false, ..options(dir.path()) };
    let mut sent = false;
    let result = take(&mut connection, &config, &options, &Arc::new(AtomicBool::new(false)), &mut |notice| match notice {
        Notice::Upload(_) => sent = true,
        Notice::Checkpoint => assert!(sent, "the manifest comes first"),
        _ => {}
    });
    assert_eq!(dir.path().join("backup/PG_VERSION").exists(), result.is_ok());
    drop(connection);
    thread.join().unwrap();
    result.map(drop)
}

/// What is missing, or comes where nothing is to come, does not pass for a backup.
#[test]
fn a_backup_without_its_parts_is_none() {
    let base = || archive("base.tar", "", &tar(&[(EntryType::Regular, "PG_VERSION", "15")]));
    let data = || sent(FromBackup::Data(b"of no archive"));
    let without_manifest = |options: &mut Options| options.manifest = None;
    for (answer, change, expected, found) in [
        (vec![begin(), end()], true, "an archive of the data directory", "none"),
        (vec![begin(), archive("16384.tar", "/srv/apart", &tar(&[])), end()], true, "an archive of the data directory", "none"),
        (vec![begin(), data(), base(), end()], true, "the start of an archive", "data of none"),
        (vec![begin(), base(), end()], false, "a manifest", "none"),
    ] {
        let error = refused(answer.concat(), |options| {
            options.verify = false;
            if change {
                without_manifest(options);
            }
        });
        assert!(matches!(&error, BackupError::Answer { expected: e, found: f } if *e == expected && f == found), "{error}");
    }
}

#[test]
fn the_manifest_is_sent_before_an_incremental_backup() {
    let (copy_in, done) = (message(b'G', &[0, 0, 0]), [message(b'C', b"UPLOAD_MANIFEST\0"), ready()].concat());
    let manifest: Vec<u8> = (0..400_000u32).flat_map(u32::to_be_bytes).collect();
    for manifest in [&manifest[..], b""] {
        let upload = Upload { begin: copy_in.clone(), manifest: Some(manifest.to_vec()), end: done.clone() };
        incremental(17, manifest, upload).unwrap();
    }
    let error = |text: &str| [message(b'E', format!("SERROR\0VERROR\0C22023\0M{text}\0\0").as_bytes()), ready()].concat();
    let upload = Upload { begin: copy_in, manifest: Some(b"{}".to_vec()), end: error("could not parse backup manifest") };
    let refused = incremental(18, b"{}", upload).unwrap_err().to_string();
    assert_eq!(refused, "ERROR:  could not parse backup manifest");
    let upload = Upload { begin: Vec::new(), manifest: None, end: error("WAL summarization is disabled") };
    assert_eq!(incremental(17, b"{}", upload).unwrap_err().to_string(), "ERROR:  WAL summarization is disabled");
    let upload = Upload { begin: Vec::new(), manifest: None, end: Vec::new() };
    let refused = incremental(16, b"{}", upload).unwrap_err().to_string();
    assert_eq!(refused, "incremental backups need a server of PostgreSQL 17 or later");
}

#[test]
fn names_do_not_lead_out_of_the_backup() {
    use EntryType::{Block, Directory, Link, Regular, Symlink};
    let space = (Symlink, "pg_tblspc/16384", "/srv/apart");
    for (entries, expected) in [
        (&[(Regular, "../outside", "x")][..], "\"../outside\": its name leads out of the archive"),
        (&[(Regular, "/tmp/outside", "x")], "\"/tmp/outside\": its name leads out of the archive"),
        (&[(Directory, "a/../../outside", "")], "\"a/../../outside\": its name leads out of the archive"),
        (&[(Symlink, "pg_wal", "/etc")], "\"pg_wal\": it is a link to \"/etc\", where no tablespace is"),
        (
            &[(Directory, "pg_tblspc", ""), (Symlink, "pg_tblspc/1", "/etc")],
            "\"pg_tblspc/1\": it is a link to \"/etc\", where no tablespace is",
        ),
        (&[(Directory, "pg_tblspc", ""), space, (Regular, "pg_tblspc/16384/x", "x")], "\"pg_tblspc/16384/x\": it is below a link"),
        (&[(Link, "passwd", "/etc/passwd")], "\"passwd\": it is neither a file nor a directory"),
        (&[(Block, "sda", "")], "\"sda\": it is neither a file nor a directory"),
    ] {
        let answer = [begin(), archive("base.tar", "", &tar(entries)), end()].concat();
        let error = refused(answer, |_| {}).to_string();
        assert!(error.starts_with("archive \"base.tar\": ") && error.contains(expected), "{error}");
    }
    let twice = tar(&[(Regular, "PG_VERSION", "15"), (Regular, "PG_VERSION", "16")]);
    let error = refused([begin(), archive("base.tar", "", &twice), end()].concat(), |_| {}).to_string();
    assert!(error.contains("could not create \"") && error.ends_with("File exists (os error 17)"), "{error}");
    let error = refused([begin(), archive("1.tar", "/srv/other", &tar(&[])), end()].concat(), |_| {}).to_string();
    assert_eq!(error, "archive \"1.tar\": it is of a tablespace in \"/srv/other\", which the server has not named");
    let start = rows(2, &[&[Some("0/2000028"), Some("1")]]);
    let outside = rows(3, &[&[Some("16384"), Some("../../outside"), None], &[None, None, None]]);
    let error = refused([start, outside, message(b'H', &[0, 0, 0])].concat(), |options| options.tablespaces.clear()).to_string();
    assert_eq!(error, "the server answered BASE_BACKUP with ../../outside: expected the directory of a tablespace");
    let to_tar = |options: &mut Options| {
        options.form = Form::Tar;
        options.tablespaces.clear();
    };
    let error = refused([begin(), archive("../outside", "", &tar(&[])), end()].concat(), to_tar).to_string();
    assert_eq!(error, "archive \"../outside\": its name is not that of a file");
}

#[test]
fn what_does_not_come_whole_is_no_backup() {
    let file = tar(&[(EntryType::Regular, "PG_VERSION", &"15".repeat(2000))]);
    let no_rows = message(b'C', b"BASE_BACKUP\0");
    let error = |answer: Vec<Vec<u8>>| refused(answer.concat(), |_| {}).to_string();
    for (answer, expected) in [
        (vec![no_rows.clone(), ready()], "the server answered BASE_BACKUP with 1 result sets: expected archives"),
        (vec![message(b'H', &[0, 0, 0])], "with 0 result sets: expected a start and a list of tablespaces"),
        (vec![rows(1, &[]), rows(3, &[]), message(b'H', &[0, 0, 0])], "with 0 rows: expected one row of an LSN and a timeline"),
        (vec![begin()], "closed"),
        (vec![begin(), archive("base.tar", "", &file[..1500])], "closed"),
        (vec![begin(), archive("base.tar", "", &file[..1500]), end()], "the archive ends 3012 bytes before its end"),
        (vec![begin(), archive("base.tar", "", &file[..100]), end()], "archive \"base.tar\": "),
        (vec![begin(), archive("base.tar", "", &[0xFF; 2048]), end()], "archive \"base.tar\": "),
        (vec![begin(), archive("base.tar.gz", "", &file), end()], "archive \"base.tar.gz\": "),
        (vec![begin(), archive("base.tar.zst", "", &file), end()], "archive \"base.tar.zst\": "),
        (vec![begin(), archive("base.tar.lz4", "", &file), end()], "archive \"base.tar.lz4\": "),
        (vec![begin(), message(b'd', b"x"), end()], "the server sent a replication message of type \"x\": expected one of n, m, d, p"),
        (vec![begin(), message(b'd', b"nbase.tar"), end()], "the server sent "),
        (vec![begin(), archive("base.tar", "", &file), message(b'c', &[]), no_rows, ready()], "with no row: expected an end"),
        (
            vec![begin(), archive("base.tar", "", &file), message(b'E', b"SERROR\0VERROR\0C53100\0Mcould not read\0\0"), ready()],
            "ERROR:  could not read",
        ),
    ] {
        let error = error(answer);
        assert!(error.contains(expected), "{error}");
    }
}

/// A backup that is not as its manifest says must not pass for one.
#[test]
fn a_backup_that_fails_its_verification_is_none() {
    let file = tar(&[(EntryType::Regular, "PG_VERSION", "15")]);
    let answer = || {
        let manifest = [sent(FromBackup::Manifest), sent(FromBackup::Data(b"{}"))].concat();
        [begin(), archive("base.tar", "", &file), manifest, end()].concat()
    };
    let error = refused(answer(), |_| {});
    assert!(matches!(&error, BackupError::Unverified { error, kept: false } if matches!(**error, BackupError::Manifest(_))), "{error}");
    assert!(error.to_string().ends_with("\nthe backup has failed its verification and is removed; --no-clean leaves it for a closer look"));
    // It stays where that is asked for, and has no manifest.
    let dir = tempfile::tempdir().unwrap();
    let (config, thread) = server(answer());
    let mut connection = Connection::connect(&config, Mode::Replication).unwrap();
    let options = Options { keep_failed: true, ..options(dir.path()) };
    let error = take(&mut connection, &config, &options, &Arc::new(AtomicBool::new(false)), &mut |_| {}).unwrap_err();
    assert!(matches!(error, BackupError::Unverified { kept: true, .. }), "{error}");
    let at = |name: &str| dir.path().join("backup").join(name).exists();
    assert_eq!((at("PG_VERSION"), at("backup_manifest"), at("backup_manifest.tmp")), (true, false, true));
    drop(connection);
    thread.join().unwrap();
}

/// What is asked before the backup is answered at once, or the server is given up.
#[test]
fn a_server_that_does_not_answer_is_given_up() {
    for silent_at in ["IDENTIFY_SYSTEM", "SHOW wal_segment_size", "SHOW data_directory_mode"] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let thread = std::thread::spawn(move || {
            let mut client = accept(&listener);
            client.write_all(&[message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4\0"), ready()].concat()).unwrap();
            while let Ok(head) = read(&mut client, 5) {
                let text = read(&mut client, u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4).unwrap();
                let one = |value: &str| [rows(1, &[&[Some(value)]]), ready()].concat();
                let answer = match String::from_utf8(text).unwrap().trim_end_matches('\0') {
                    text if text == silent_at => continue,
                    "IDENTIFY_SYSTEM" => [rows(4, &[&[Some("7"), Some("1"), Some("0/3000000"), None]]), ready()].concat(),
                    "SHOW wal_segment_size" => one("16MB"),
                    _ => one("8192"),
                };
                client.write_all(&answer).unwrap();
            }
        });
        let env = Environment::new("me", Path::new("/nonexistent"));
        let config = Config::parse(&format!("host=127.0.0.1 port={port} sslmode=disable connect_timeout=2"), &env).unwrap();
        let mut connection = Connection::connect(&config, Mode::Replication).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let result = take(&mut connection, &config, &options(dir.path()), &Arc::new(AtomicBool::new(false)), &mut |_| {});
        let error = result.unwrap_err();
        assert!(matches!(error, BackupError::Server(pgwal_stream::connection::Error::Timeout)), "{silent_at}: {error}");
        drop(connection);
        thread.join().unwrap();
    }
}

/// A manifest that never ends, or never comes, neither keeps anybody for ever nor is sent to a server that has refused it.
#[test]
fn a_manifest_without_end() {
    let error = [message(b'E', b"SERROR\0VERROR\0C22023\0Mcould not parse backup manifest\0\0"), ready()].concat();
    let dir = tempfile::tempdir().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    for (path, answer, stop, expected) in [
        (Path::new("/dev/zero"), error, false, "ERROR:  could not parse backup manifest"),
        (fifo.as_path(), Vec::new(), true, "interrupted"),
    ] {
        let upload = Upload { begin: [message(b'G', &[0, 0, 0]), answer].concat(), manifest: None, end: Vec::new() };
        let (config, thread) = server_of(17, Some(upload), "BASE_BACKUP", Vec::new());
        let flag = Arc::new(AtomicBool::new(false));
        let mut connection = Connection::connect_until(&config, Mode::Replication, Arc::clone(&flag)).unwrap();
        let options = Options { incremental: Some(path.to_owned()), ..options(dir.path()) };
        let result = take(&mut connection, &config, &options, &flag, &mut |notice| {
            if matches!(notice, Notice::Upload(_)) {
                flag.store(stop, std::sync::atomic::Ordering::Relaxed);
            }
        });
        assert_eq!(result.unwrap_err().to_string(), expected);
        drop(connection);
        thread.join().unwrap();
    }
}

/// The header of a member that says that it has so many bytes.
fn claims(kind: u8, name: &str, size: u64) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o600);
    header.set_size(size);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn names_and_settings_without_end_are_refused() {
    const LONG: u64 = 3 << 30;
    let to_tar = |options: &mut Options| {
        options.form = Form::Tar;
        options.tablespaces.clear();
        options.recovery = Some(pgwal_stream::backup::Recovery::default());
    };
    // What is sent of it would be enough to see, and there is no more.
    let sent_of_it = vec![b'x'; 20 << 20];
    for (kind, name) in [(b'L', "././@LongLink"), (b'K', "././@LongLink"), (b'x', "pax")] {
        let bytes = [claims(kind, name, LONG), sent_of_it.clone()].concat();
        let error = refused([begin(), archive("base.tar", "", &bytes), end()].concat(), |_| {}).to_string();
        assert_eq!(error, "archive \"base.tar\": a name longer than 1 MB", "{}", char::from(kind));
    }
    let bytes = [claims(b'0', "postgresql.auto.conf", LONG), sent_of_it].concat();
    let error = refused([begin(), archive("base.tar", "", &bytes), end()].concat(), to_tar).to_string();
    assert_eq!(error, "archive \"base.tar\": \"postgresql.auto.conf\" has more than 16777216 bytes");
}

#[test]
fn what_a_server_calls_things_does_not_steer_the_terminal() {
    let escape = "\u{1b}]0;title\u{7}\u{9b}2J";
    let safe = |error: String| assert!(!error.chars().any(|c| c.is_control() && c != '\n') && error.contains("\\x1b"), "{error:?}");
    safe(refused([begin(), archive(escape, "", &[0xFF; 2048]), end()].concat(), |_| {}).to_string());
    safe(refused([begin(), archive("base.tar", "", &tar(&[(EntryType::Block, escape, "")])), end()].concat(), |_| {}).to_string());
    safe(refused([begin(), archive("1.tar", escape, &tar(&[])), end()].concat(), |_| {}).to_string());
    let said = message(b'E', format!("SERROR\0V{escape}\0C53100\0M{escape}\0D{escape}\0H{escape}\0\0").as_bytes());
    safe(refused([begin(), said, ready()].concat(), |_| {}).to_string());
    let place = rows(2, &[&[Some(escape), Some("1")]]);
    let error = refused([place, rows(3, &[]), message(b'H', &[0, 0, 0])].concat(), |_| {}).to_string();
    assert!(!error.contains('\u{1b}'), "{error:?}");
}

/// A server whose backup never ends, and whose stream of WAL ends at once with this timeline.
fn promoted(next: [&'static str; 2]) -> Config {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = move |client: &mut TcpStream| -> std::io::Result<()> {
        let read = |client: &mut TcpStream, len: usize| {
            let mut bytes = vec![0; len];
            client.read_exact(&mut bytes).map(|()| bytes)
        };
        let len = u32::from_be_bytes(read(client, 4)?.try_into().unwrap());
        read(client, len as usize - 4)?;
        client.write_all(&[message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4\0"), ready()].concat())?;
        loop {
            let head = read(client, 5)?;
            let text = String::from_utf8(read(client, u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4)?).unwrap();
            let one = |value: &str| [rows(1, &[&[Some(value)]]), ready()].concat();
            let answer = match text.trim_end_matches('\0') {
                "IDENTIFY_SYSTEM" => [rows(4, &[&[Some("7"), Some("1"), Some("0/3000000"), None]]), ready()].concat(),
                "SHOW wal_segment_size" => one("16MB"),
                "SHOW wal_block_size" | "SHOW block_size" => one("8192"),
                "SHOW data_directory_mode" => one("0700"),
                "START_REPLICATION PHYSICAL 0/2000000 TIMELINE 1" => {
                    let end = rows(2, &[&[Some(next[0]), Some(next[1])]]);
                    client.write_all(&[message(b'W', &[0, 0, 0]), message(b'c', &[])].concat())?;
                    // Statuses, and the end of the COPY from that side.
                    while read(client, 5).map(|head| head[0] != b'c' && head[4] > 4 && read(client, head[4] as usize - 4).is_ok())? {}
                    [end, message(b'C', b"START_REPLICATION\0"), ready()].concat()
                }
                text if text.starts_with("BASE_BACKUP") => {
                    let start = rows(2, &[&[Some("0/2000028"), Some("1")]]);
                    [start, rows(3, &[]), message(b'H', &[0, 0, 0]), sent(FromBackup::Archive { name: "base.tar", tablespace: "" })]
                        .concat()
                }
                other => panic!("{other}"),
            };
            client.write_all(&answer)?;
        }
    };
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || serve(&mut client));
        }
    });
    let env = Environment::new("me", Path::new("/nonexistent"));
    Config::parse(&format!("host=127.0.0.1 port={port} sslmode=disable"), &env).unwrap()
}

#[test]
fn a_timeline_that_cannot_follow_ends_the_backup() {
    for (next, expected) in [
        (["2", "0/3000000"], "server stopped streaming timeline 1 at 0/02000000, but reported next timeline 2 to begin at 0/03000000"),
        (["1", "0/2000000"], "server reported unexpected next timeline 1, following timeline 1"),
        (["2", "here"], "the result set at the end of streaming: next_tli_startpos missing or wrong"),
    ] {
        let config = promoted(next);
        let dir = tempfile::tempdir().unwrap();
        let mut connection = Connection::connect(&config, Mode::Replication).unwrap();
        let options = Options { wal: WalMethod::Stream, tablespaces: Vec::new(), ..options(dir.path()) };
        let result = take(&mut connection, &config, &options, &Arc::new(AtomicBool::new(false)), &mut |_| {});
        let error = result.unwrap_err().to_string();
        assert_eq!(error, format!("the WAL that the backup needs did not come: {expected}"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
