//! Connections to servers that misbehave.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use pgwal_stream::connection::{AuthError, Connection, CopyEvent, CopyStart, Error, Mode, Result};
use pgwal_stream::conninfo::{Config, Environment};

/// A server that plays `script` to each of its clients, as many as `clients`.
fn play(clients: usize, script: impl Fn(&mut TcpStream) + Send + 'static) -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        for _ in 0..clients {
            script(&mut listener.accept().unwrap().0);
        }
    });
    (port, thread)
}

fn config(port: u16, more: &str) -> Config {
    let env = Environment::new("me", Path::new("/nonexistent"));
    Config::parse(&format!("host=127.0.0.1 port={port} password=secret {more}"), &env).unwrap()
}

/// What comes of connecting to a server that reads the startup message, says this, and closes the connection.
fn answer(bytes: &[u8]) -> Error {
    let bytes = bytes.to_vec();
    let (port, thread) = play(1, move |client| {
        startup(client);
        client.write_all(&bytes).unwrap();
    });
    let mut failed = Connection::connect(&config(port, "sslmode=disable"), Mode::Replication).unwrap_err();
    thread.join().unwrap();
    failed.attempts.remove(0).error
}

/// Reads a message without a type: StartupMessage, SSLRequest.
fn startup(client: &mut TcpStream) -> Vec<u8> {
    let mut len = [0; 4];
    client.read_exact(&mut len).unwrap();
    let mut body = vec![0; u32::from_be_bytes(len) as usize - 4];
    client.read_exact(&mut body).unwrap();
    body
}

/// Reads a message with its type.
fn receive(client: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut tag = [0; 1];
    client.read_exact(&mut tag).unwrap();
    (tag[0], startup(client))
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend((body.len() as u32 + 4).to_be_bytes());
    bytes.extend(body);
    bytes
}

/// AuthenticationOk, a parameter, ReadyForQuery.
fn let_in() -> Vec<u8> {
    [message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.4 (Debian)\0"), message(b'K', &[0; 8]), message(b'Z', b"I")].concat()
}

/// A connection on which the server has answered a command with `CopyBothResponse` and goes on with `script`.
fn copying(script: impl Fn(&mut TcpStream) + Send + 'static) -> (Connection, JoinHandle<()>) {
    let (port, thread) = play(1, move |client| {
        startup(client);
        client.write_all(&let_in()).unwrap();
        assert_eq!(receive(client), (b'Q', b"START_REPLICATION\0".to_vec()));
        client.write_all(&message(b'W', &[0, 0, 0])).unwrap();
        script(client);
    });
    let mut connection = Connection::connect(&config(port, "sslmode=disable"), Mode::Replication).unwrap();
    assert_eq!(connection.server_version_num(), Some(150_004));
    assert_eq!(connection.copy_both("START_REPLICATION").unwrap(), CopyStart::Started(vec![]));
    (connection, thread)
}

fn error_response(severity: &str) -> Vec<u8> {
    message(b'E', format!("S{severity}\0V{severity}\0C58P01\0Mrequested WAL segment has already been removed\0\0").as_bytes())
}

#[test]
fn what_is_no_server() {
    assert!(matches!(answer(b"HTTP/1.1 400 Bad Request"), Error::Length { tag: b'H', found: 0x5454_502F, .. }));
    assert!(matches!(answer(b"220 mail.example ESMTP"), Error::Length { tag: b'2', .. }));
    assert!(matches!(answer(b"\x15\x03\x01"), Error::Tag { expected: "an authentication request", found: 0x15 }));
    assert!(matches!(answer(b""), Error::Closed { expected: "an authentication request", partial: 0 }));
    assert!(matches!(answer(b"R\0\0\0\x03"), Error::Length { tag: b'R', found: 3, .. }));
    assert!(matches!(answer(b"R\0\0\0\x08\0\0"), Error::Closed { partial: 7, .. }));
    assert!(matches!(answer(b"R\0\0\0\x06\0\0"), Error::Message { message: "AuthenticationRequest", field: "type" }));
    assert!(matches!(answer(b"R\x7F\0\0\0"), Error::Length { tag: b'R', found: 0x7F00_0000, .. }));
    assert!(matches!(answer(&message(b'D', &[0, 0])), Error::Tag { found: b'D', .. }));
    assert!(matches!(
        answer(&[message(b'R', &[0; 4]), message(b'd', &[])].concat()),
        Error::Tag { expected: "ReadyForQuery", found: b'd' }
    ));
    assert!(matches!(answer(&[message(b'R', &[0; 4]), message(b'K', &[0; 7])].concat()), Error::Message { message: "BackendKeyData", .. }));
    assert!(matches!(answer(&error_response("FATAL")), Error::Server(error) if error.code == "58P01" && error.is_fatal()));
}

#[test]
fn what_must_not_let_us_in() {
    let asked = |kind: u32, rest: &[u8]| message(b'R', &[&kind.to_be_bytes(), rest].concat());
    let auth = |error| match error {
        Error::Auth(error) => error,
        other => panic!("{other}"),
    };
    assert_eq!(auth(answer(&asked(7, &[]))), AuthError::Unsupported { method: "GSSAPI".to_owned() });
    assert_eq!(auth(answer(&asked(99, &[]))), AuthError::Unsupported { method: "unknown (99)".to_owned() });
    assert_eq!(auth(answer(&asked(10, b"OAUTHBEARER\0\0"))), AuthError::Unsupported { method: "SASL (OAUTHBEARER)".to_owned() });
    assert!(matches!(auth(answer(&asked(10, b"SCRAM-SHA-256-PLUS\0\0"))), AuthError::Scram { .. }));
    assert!(matches!(auth(answer(&asked(11, b"r=x"))), AuthError::Scram { .. }));
    // A server that asks for SCRAM and lets us in before it has shown anything may be anybody.
    let (sasl, bad) = (asked(10, b"SCRAM-SHA-256\0\0"), asked(11, b"r=x,s=AAAA,i=1"));
    assert_eq!(auth(answer(&[sasl.clone(), asked(0, &[])].concat())), AuthError::Unproven);
    assert!(matches!(auth(answer(&[sasl.clone(), bad].concat())), AuthError::Scram { .. }));
    assert!(matches!(auth(answer(&[sasl.clone(), sasl, asked(0, &[])].concat())), AuthError::Scram { .. }));
}

#[test]
fn what_stalls() {
    let (port, thread) = play(1, |client| {
        startup(client);
        // Until the client has had enough.
        let _ = client.read(&mut [0; 1]);
    });
    let begin = Instant::now();
    let failed = Connection::connect(&config(port, "sslmode=disable connect_timeout=1"), Mode::Replication).unwrap_err();
    assert!(matches!(failed.last(), Some(Error::Timeout)), "{failed}");
    // As libpq, which takes 1 for 2; how much later it comes to it depends on the machine.
    assert!((2..60).contains(&begin.elapsed().as_secs()));
    thread.join().unwrap();

    let (reached, waits) = std::sync::mpsc::channel();
    let (port, thread) = play(1, move |client| {
        startup(client);
        reached.send(()).unwrap();
        let _ = client.read(&mut [0; 1]);
    });
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    let setter = std::thread::spawn(move || {
        // The client waits for an answer.
        waits.recv().unwrap();
        flag.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    let failed = Connection::connect_until(&config(port, "sslmode=prefer"), Mode::Replication, stop).unwrap_err();
    assert!(failed.is_interrupted(), "{failed}");
    thread.join().unwrap();
    setter.join().unwrap();
}

/// Without a limit of its own, a query ends by `connect_timeout`, also where bytes keep coming; and the next one does not wait again.
#[test]
fn a_query_that_is_not_answered_in_time() {
    let silent: fn(&mut TcpStream) = |client| drop(client.read(&mut [0; 1]));
    let dripping: fn(&mut TcpStream) = |client| {
        client.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        // Notices without end, byte by byte, and then the answer's first message.
        let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mstill here\0\0");
        while let Some(true) = notice
            .iter()
            .map(|&byte| {
                let gone = matches!(client.read(&mut [0; 1]), Ok(0)) || client.write_all(&[byte]).is_err();
                !gone
            })
            .reduce(|a, b| a && b)
        {}
    };
    std::thread::scope(|scope| {
        for script in [silent, dripping] {
            scope.spawn(move || {
                let (port, thread) = play(1, move |client| {
                    startup(client);
                    client.write_all(&let_in()).unwrap();
                    assert_eq!(receive(client).0, b'Q');
                    script(client);
                });
                let mut connection = Connection::connect(&config(port, "sslmode=disable connect_timeout=2"), Mode::Ordinary).unwrap();
                assert_eq!(connection.limit(), None);
                let begin = Instant::now();
                assert!(matches!(connection.query("SELECT 1"), Err(Error::Timeout)));
                assert!(begin.elapsed() >= Duration::from_secs(2));
                assert!(matches!(connection.query("SELECT 1"), Err(Error::State { .. })));
                drop(connection);
                thread.join().unwrap();
            });
        }
    });
}

/// What libpq reads only when it connects is an error only then, with its words before it; keepalives are nothing to a Unix socket.
#[test]
fn numbers_that_are_read_late() {
    let env = Environment::new("me", Path::new("/nonexistent"));
    let settings = |text: &str| pgwal_stream::conninfo::Settings::parse(text).unwrap();
    for (host, option, expected) in [
        (
            "127.0.0.1",
            "connect_timeout",
            "connection to server at \"127.0.0.1\", port 1 failed: invalid integer value \"x\" for connection option \"connect_timeout\"",
        ),
        (
            "127.0.0.1",
            "keepalives_idle",
            "connection to server at \"127.0.0.1\", port 1 failed: invalid integer value \"x\" for connection option \"keepalives_idle\"",
        ),
        (
            "/nonexistent",
            "connect_timeout",
            "connection to server on socket \"/nonexistent/.s.PGSQL.1\" failed: could not connect: No such file or directory (os error 2)",
        ),
        (
            "/nonexistent",
            "keepalives",
            "connection to server on socket \"/nonexistent/.s.PGSQL.1\" failed: could not connect: No such file or directory (os error 2)",
        ),
    ] {
        let text = format!("host={host} port=1 {option}=x");
        let wrong = Config::parse(&text, &env).unwrap_err().to_string();
        assert_eq!(wrong, format!("invalid integer value \"x\" for connection option \"{option}\""));
        let config = Config::new_as_libpq(settings(&text), &env).unwrap();
        assert_eq!(Connection::connect(&config, Mode::Ordinary).unwrap_err().to_string(), expected);
    }
    let dir = tempfile::tempdir().unwrap();
    let listener = std::os::unix::net::UnixListener::bind(dir.path().join(".s.PGSQL.1")).unwrap();
    let config = Config::new_as_libpq(settings(&format!("host={} port=1 connect_timeout=5x", dir.path().display())), &env).unwrap();
    let said = Connection::connect(&config, Mode::Ordinary).unwrap_err().to_string();
    assert!(said.ends_with(".s.PGSQL.1\" failed: invalid integer value \"5x\" for connection option \"connect_timeout\""), "{said}");
    drop(listener);
}

#[test]
fn answers_to_the_wish_for_tls() {
    let connect = |mode: &str, clients, script: fn(&mut TcpStream)| {
        let (port, thread) = play(clients, script);
        let result = Connection::connect(&config(port, &format!("sslmode={mode}")), Mode::Replication);
        thread.join().unwrap();
        result.map(drop).map_err(|mut failed| failed.attempts.remove(0).error)
    };
    let no = |client: &mut TcpStream| {
        startup(client);
        client.write_all(b"N").unwrap();
        if client.read(&mut [0; 1]).unwrap_or(0) == 1 {
            let mut rest = [0; 3];
            client.read_exact(&mut rest).unwrap();
            client.read_exact(&mut vec![0; rest[2] as usize - 4]).unwrap();
            client.write_all(&let_in()).unwrap();
        }
    };
    connect("prefer", 1, no).unwrap();
    assert!(matches!(connect("require", 1, no), Err(Error::TlsRefused)));
    assert!(matches!(connect("prefer", 1, |client| client.write_all(b"X").unwrap()), Err(Error::Tag { found: b'X', .. })));
    // Plain text after the answer is not from the server: it must not get past the handshake.
    let injected = |client: &mut TcpStream| {
        startup(client);
        client.write_all(&[b"S".to_vec(), let_in()].concat()).unwrap();
        let _ = client.read_to_end(&mut Vec::new());
    };
    assert!(matches!(connect("require", 1, injected), Err(Error::Tls(_))));
}

#[test]
fn copy_in_pieces() {
    // It sends a byte whenever the client has waited for one in vain.
    let (waited, wait) = std::sync::mpsc::channel();
    let (mut connection, thread) = copying(move |client| {
        for byte in message(b'd', b"slow") {
            wait.recv().unwrap();
            client.write_all(&[byte]).unwrap();
        }
        let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0");
        client.write_all(&[message(b'd', &large), notice, message(b'd', b""), message(b'c', b"")].concat()).unwrap();
        assert_eq!(receive(client), (b'd', b"status".to_vec()));
        assert_eq!(receive(client), (b'c', vec![]));
        let row = message(b'D', b"\0\x02\0\0\0\x012\xff\xff\xff\xff");
        let columns =
            [b"\0\x02".to_vec(), b"next_tli\0".to_vec(), vec![0; 6], vec![0, 0, 0, 20], vec![0; 8], b"b\0".to_vec(), vec![0; 18]].concat();
        client.write_all(&[message(b'T', &columns), row, message(b'C', b"START_STREAMING\0"), message(b'Z', b"I")].concat()).unwrap();
        assert_eq!(receive(client), (b'X', vec![]));
    });
    let mut timeouts = 0;
    loop {
        match connection.next_copy(Some(Instant::now() + Duration::from_millis(10))).unwrap() {
            CopyEvent::Timeout => {
                timeouts += 1;
                // It may have sent all of them already.
                let _ = waited.send(());
            }
            event => break assert_eq!(event, CopyEvent::Data(b"slow")),
        }
    }
    assert!(timeouts > 2, "{timeouts}");
    match connection.next_copy(None).unwrap() {
        CopyEvent::Data(data) => assert!(data.len() == 3_000_000 && data.iter().enumerate().all(|(at, &byte)| byte == at as u8)),
        other => panic!("{other:?}"),
    }
    assert_eq!(connection.next_copy(None).unwrap(), CopyEvent::Data(b""));
    assert_eq!(connection.take_notices()[0].message, "hello");
    assert_eq!(connection.next_copy(None).unwrap(), CopyEvent::Done);
    assert_eq!(connection.next_copy(None).unwrap(), CopyEvent::Done);
    assert!(matches!(connection.query("SHOW x"), Err(Error::State { .. })));
    connection.send_copy(b"status").unwrap();
    let sets = connection.finish_copy(None).unwrap();
    assert_eq!((sets[0].text(0, 0), sets[0].bytes(0, 1), sets[0].columns[0].type_oid), (Some("2"), None, 20));
    assert!(matches!(connection.next_copy(None), Err(Error::State { .. })));
    drop(connection);
    thread.join().unwrap();
}

/// What the first `next_copy` says when the server sends this and closes the connection.
fn copied(bytes: Vec<u8>) -> Result<()> {
    let (mut connection, thread) = copying(move |client| client.write_all(&bytes).unwrap());
    let result = connection.next_copy(None).map(drop);
    thread.join().unwrap();
    assert!(matches!(connection.query("SHOW x"), Err(Error::State { .. })));
    result
}

#[test]
fn copy_that_breaks() {
    assert!(matches!(copied(vec![]), Err(Error::Closed { expected: "CopyData", partial: 0 })));
    assert!(matches!(copied(b"d\0\0\x01\0abc".to_vec()), Err(Error::Closed { expected: "CopyData", partial: 8 })));
    assert!(matches!(copied(b"d\0\0".to_vec()), Err(Error::Closed { partial: 3, .. })));
    assert!(matches!(copied(b"d\x04\0\0\x01".to_vec()), Err(Error::Length { tag: b'd', found: 0x0400_0001, .. })));
    assert!(matches!(copied(b"d\0\0\0\0".to_vec()), Err(Error::Length { found: 0, .. })));
    assert!(matches!(copied(b"\xff".to_vec()), Err(Error::Tag { expected: "CopyData", found: 0xFF })));
    assert!(matches!(copied(message(b'Z', b"I")), Err(Error::Tag { expected: "CopyData", found: b'Z' })));
    assert!(matches!(copied(error_response("FATAL")), Err(Error::Server(_))));
}

#[test]
fn an_error_ends_the_copy_only() {
    let (mut connection, thread) = copying(|client| {
        client.write_all(&[error_response("ERROR"), message(b'Z', b"I")].concat()).unwrap();
        assert_eq!(receive(client).0, b'Q');
        client.write_all(&[message(b'C', b"OK\0"), message(b'Z', b"I")].concat()).unwrap();
    });
    assert!(matches!(connection.next_copy(None), Err(Error::Server(error)) if error.code == "58P01"));
    assert_eq!(connection.query("AGAIN").unwrap()[0].tag, "OK");
    drop(connection);
    thread.join().unwrap();
}

/// A walsender that is shut down sends CommandComplete without CopyDone, and ends.
#[test]
fn a_server_that_shuts_down() {
    let (mut connection, thread) = copying(|client| {
        client.write_all(&[message(b'd', b"last"), message(b'C', b"COPY 0\0")].concat()).unwrap();
    });
    assert_eq!(connection.next_copy(None).unwrap(), CopyEvent::Data(b"last"));
    assert_eq!(connection.next_copy(None).unwrap(), CopyEvent::ShutDown);
    assert!(matches!(connection.query("SHOW x"), Err(Error::State { .. })));
    thread.join().unwrap();

    // While this side ends the stream.
    let (mut connection, thread) = copying(|client| {
        client.write_all(&message(b'C', b"COPY 0\0")).unwrap();
        assert_eq!(receive(client), (b'c', vec![]));
    });
    assert_eq!(connection.finish_copy(None).unwrap(), []);
    drop(connection);
    thread.join().unwrap();
}
