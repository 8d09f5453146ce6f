//! Servers that send names without end, and backups with things in them that are no files: in bounded memory, and without waiting.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;

use tar::{EntryType, Header};

use super::temporary;

/// Within 256 MiB of memory of its own: data, heap and stacks. Linux: RLIMIT_DATA.
fn limited(args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new("prlimit");
    let ran = command.args(["--data=268435456", "--", env!("CARGO_BIN_EXE_pgwal"), "basebackup"]).args(args).output().unwrap();
    (ran.status.code(), String::from_utf8_lossy(&ran.stderr).into_owned())
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

/// Rows of text.
fn rows(columns: usize, rows: &[&[&str]]) -> Vec<u8> {
    let head = [&(columns as u16).to_be_bytes()[..], &[&b"c\0"[..], &[0; 18]].concat().repeat(columns)].concat();
    let mut bytes = message(b'T', &head);
    for row in rows {
        let values = row.iter().flat_map(|value| [&(value.len() as u32).to_be_bytes(), value.as_bytes()].concat()).collect();
        bytes.extend(message(b'D', &[(row.len() as u16).to_be_bytes().to_vec(), values].concat()));
    }
    [bytes, message(b'C', b"SELECT\0")].concat()
}

/// A server whose archive begins so and goes on without end; the port that it listens on.
fn server(archive: Vec<u8>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let read = |client: &mut TcpStream, len: usize| {
        let mut bytes = vec![0; len];
        client.read_exact(&mut bytes).map(|()| bytes)
    };
    let serve = move |client: &mut TcpStream| -> std::io::Result<()> {
        let len = u32::from_be_bytes(read(client, 4)?.try_into().unwrap());
        read(client, len as usize - 4)?;
        let ready = message(b'Z', b"I");
        client.write_all(&[message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4\0"), ready.clone()].concat())?;
        loop {
            let head = read(client, 5)?;
            let text = read(client, u32::from_be_bytes(head[1..].try_into().unwrap()) as usize - 4)?;
            let answer = match String::from_utf8(text).unwrap().trim_end_matches('\0') {
                "IDENTIFY_SYSTEM" => rows(3, &[&["7", "1", "0/3000000"]]),
                "SHOW wal_segment_size" => rows(1, &[&["16MB"]]),
                "SHOW data_directory_mode" => rows(1, &[&["0700"]]),
                show if show.starts_with("SHOW ") => rows(1, &[&["8192"]]),
                _ => break,
            };
            client.write_all(&[answer, ready.clone()].concat())?;
        }
        let begin = [rows(2, &[&["0/2000028", "1"]]), rows(3, &[]), message(b'H', &[0, 0, 0]), message(b'd', b"nbase.tar\0\0")].concat();
        client.write_all(&begin)?;
        client.write_all(&message(b'd', &[b"d", &archive[..]].concat()))?;
        let more = message(b'd', &[b"d", &vec![b'x'; 32 << 10][..]].concat()).repeat(16);
        loop {
            client.write_all(&more)?;
        }
    };
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = serve(&mut client);
        }
    });
    port
}

/// The header of a member that says that it has 3 GB.
fn claims(kind: u8, name: &str) -> Vec<u8> {
    let mut header = Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_entry_type(EntryType::new(kind));
    header.set_mode(0o600);
    header.set_size(3 << 30);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn names_without_end_do_not_fill_the_memory() {
    for (kind, name, more, problem) in [
        (b'L', "long", &[][..], "a name longer than 1 MB"),
        (b'K', "long", &[], "a name longer than 1 MB"),
        (b'x', "pax", &[], "a name longer than 1 MB"),
        (b'0', "postgresql.auto.conf", &["-F", "tar", "-R"], "has more than 16777216 bytes"),
    ] {
        let conninfo = format!("host=127.0.0.1 port={} user=me sslmode=disable", server(claims(kind, name)));
        let dir = temporary();
        let backup = dir.path().join("backup");
        let (status, said) = limited(&[&["-X", "none", "-D", backup.to_str().unwrap(), "-d", &conninfo], more].concat());
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(problem), "{said}");
        assert!(!backup.exists());
    }
    // In archives that are here: the holes of a file are its bytes.
    for (kind, name) in [(b'L', "long"), (b'K', "long"), (b'x', "pax")] {
        let dir = temporary();
        fs::write(
            dir.path().join("backup_manifest"),
            manifest("{ \"Path\": \"x\", \"Size\": 1, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\" }"),
        )
        .unwrap();
        let path = dir.path().join("base.tar");
        fs::write(&path, claims(kind, name)).unwrap();
        fs::File::options().write(true).open(&path).unwrap().set_len((3 << 30) + 2048).unwrap();
        let (status, said) = limited(&["--verify-only", "-D", dir.path().to_str().unwrap()]);
        assert!(status.is_some_and(|status| status > 0) && said.starts_with("pgwal: "), "{said}");
    }
}

/// A manifest with these files.
fn manifest(files: &str) -> String {
    use sha2::Digest;
    let head = format!("{{ \"PostgreSQL-Backup-Manifest-Version\": 1,\n\"Files\": [\n{files}\n],\n\"WAL-Ranges\": [\n],\n");
    let digits: String = sha2::Sha256::digest(&head).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{head}\"Manifest-Checksum\": \"{digits}\"}}\n")
}

#[test]
fn what_is_no_file_is_an_error_and_never_waited_for() {
    let outside = temporary();
    fs::write(outside.path().join("file"), "x").unwrap();
    type Make = fn(&Path, &Path);
    let cases: [(&str, Make); 5] = [
        ("a FIFO", |path, _| assert!(Command::new("mkfifo").arg(path).status().unwrap().success())),
        ("a socket", |path, _| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("a link to a device", |path, _| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
        ("a link out of the backup", |path, outside| std::os::unix::fs::symlink(outside.join("file"), path).unwrap()),
        ("a link to nothing", |path, _| std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap()),
    ];
    for (what, make) in cases {
        for place in ["x", "base/x", "backup_manifest"] {
            let dir = temporary();
            let entry = format!(
                "{{ \"Path\": \"{place}\", \"Size\": 1, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00000000\" }}"
            );
            fs::create_dir(dir.path().join("base")).unwrap();
            if place != "backup_manifest" {
                fs::write(dir.path().join("backup_manifest"), manifest(&entry)).unwrap();
            }
            make(&dir.path().join(place), outside.path());
            let mut command = Command::new("timeout");
            let args = ["-s", "KILL", "180", env!("CARGO_BIN_EXE_pgwal"), "basebackup", "--verify-only", "-X", "none", "-D"];
            let ran = command.args(args).arg(dir.path()).output().unwrap();
            let said = String::from_utf8_lossy(&ran.stderr);
            assert_eq!(ran.status.code(), Some(1), "{what} as {place}: {said}");
            assert!(said.contains(place) || place == "backup_manifest", "{what} as {place}: {said}");
        }
    }
}
