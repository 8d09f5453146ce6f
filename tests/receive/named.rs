//! Files that the connection names, where there are pipes and devices instead: they end, in time and in memory.

use std::io::Read;

use super::refused::{fake, startup};
use super::*;

/// A server that says yes to TLS, and nothing else.
fn with_tls() -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            std::thread::spawn(move || startup(&mut client).and_then(|()| client.read(&mut [0; 1])));
        }
    });
    format!("host=127.0.0.1 port={port} user=me")
}

#[test]
fn pipes_and_devices_in_the_place_of_files() {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let fifo = at("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    fs::write(at("cert"), "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").unwrap();
    let (tls, plain) = (with_tls(), fake(|_| Ok(())));
    let silent = "is a pipe or a device, and nothing came from it for 2 s";
    let cert = at("cert");
    let none = String::new();
    let cases = [
        (format!("{tls} sslmode=verify-ca sslrootcert={fifo}"), &none, silent),
        (format!("{tls} sslmode=verify-ca sslrootcert=/dev/zero"), &none, "has more than 16777216 bytes"),
        (format!("{tls} sslmode=require sslcert={fifo}"), &none, silent),
        (format!("{tls} sslmode=require sslcert=/dev/zero"), &none, "has more than 16777216 bytes"),
        (format!("{tls} sslmode=require sslcert={cert} sslkey={fifo}"), &none, "is not a regular file"),
        (format!("{tls} sslmode=require sslcert={cert} sslkey=/dev/zero"), &none, "is not a regular file"),
        (format!("{plain} passfile={fifo}"), &none, "WARNING: password file \""),
        (format!("{plain} passfile=/dev/zero"), &none, "WARNING: password file \"/dev/zero\" is not a plain file"),
        ("service=s".to_owned(), &fifo, silent),
        ("service=s".to_owned(), &"/dev/zero".to_owned(), "could not read service file \"/dev/zero\": has more than 1048576 bytes"),
    ];
    std::thread::scope(|scope| {
        for (conninfo, services, expected) in &cases {
            scope.spawn(move || {
                let wal = TempDir::new().unwrap();
                for args in [
                    &["receive", "--no-loop", "-D", wal.path().to_str().unwrap()][..],
                    &["slot", "list"],
                    &["basebackup", "-D", "/nowhere/x"],
                ] {
                    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
                    let conninfo = format!("{conninfo} connect_timeout=2");
                    command.args(args).args(["-w", "-d", &conninfo]).env("HOME", "/nonexistent").env("PGSERVICEFILE", services);
                    let (status, said) = Running::start(command).end();
                    assert!(status == Some(1) && said.contains(expected), "{args:?} {conninfo}: {said}");
                }
            });
        }
    });
}

/// A pipe that nobody writes into is left when a signal says so, whatever the time limit.
#[test]
fn a_signal_ends_the_wait_for_a_pipe() {
    let dir = TempDir::new().unwrap();
    let fifo = dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let conninfo = format!("{} sslmode=verify-ca sslrootcert={}", with_tls(), fifo.display());
    let wal = TempDir::new().unwrap();
    let running = Running::start(receive_from(&conninfo, wal.path(), [""; 0]));
    // It has the lock before it connects.
    wait_until("the receiver", || wal.path().join(".pgwal-receive.lock").exists());
    let opened = format!("/proc/{}/fd", running.child.id());
    wait_until("the pipe", || {
        fs::read_dir(&opened).unwrap().flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == fifo))
    });
    let (status, said) = running.stop_by("-TERM");
    assert_eq!(status, Some(0), "{said}");
}
