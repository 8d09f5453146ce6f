//! Servers that keep one waiting, or busy: a signal and a time limit hold whatever they do, and the memory is bounded.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use super::refused::{fake, given_up, let_in, message, query, row, startup, streams, system, up_to_streaming};
use super::*;

/// From the signal to the end, at most. What takes longest by design is the second that a server gets to end the stream.
const SOON: Duration = Duration::from_secs(2);
/// So many tries to be that quick: a busy machine may keep the process from running in one of them. What waits for a time limit of the
/// connection (ten seconds) or for the server (for ever) never is.
const TRIES: usize = 5;
/// What a server does with a client.
type Script = Box<dyn Fn(&mut TcpStream) -> std::io::Result<()> + Send>;

fn wait_for_ever(client: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(client, &mut std::io::sink()).map(drop)
}

/// A server that tells `reached` when a client has come to where `script` leaves it alone, and keeps it there.
fn signalled(script: Script, reads: bool) -> (String, std::sync::mpsc::Receiver<()>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut client in listener.incoming().flatten() {
            let _ = script(&mut client);
            let _ = sender.send(());
            if reads {
                let _ = wait_for_ever(&mut client);
            }
            kept.push(client);
        }
    });
    (format!("host=127.0.0.1 port={port} user=me"), receiver)
}

/// What `start` starts and has waiting ends each time it is told to, without an error, and does so [`SOON`].
#[track_caller]
fn ends_soon(what: &str, start: impl Fn() -> Running) {
    let mut took = Vec::new();
    while took.len() < TRIES {
        let running = start();
        signal(&running.child, "-TERM");
        let told = Instant::now();
        let (status, said) = running.end();
        let time = told.elapsed();
        assert_eq!(status, Some(0), "{what}: {said}");
        if time < SOON {
            return;
        }
        took.push(time);
    }
    panic!("{what}: {took:?}");
}

#[test]
fn told_to_stop_it_stops_wherever_the_server_keeps_it_waiting() {
    let streaming = |client: &mut TcpStream| startup(client).and_then(|()| up_to_streaming(client, &system(&row(&["8192"]))));
    let (plain, tls) = ("sslmode=disable", "sslmode=require");
    let places: [(&str, &str, Script); 10] = [
        ("after the startup message", plain, Box::new(startup)),
        ("after the wish for TLS", tls, Box::new(startup)),
        ("in the handshake", tls, Box::new(|client| startup(client).and_then(|()| client.write_all(b"S")))),
        (
            "in a query",
            plain,
            Box::new(|client| {
                startup(client)?;
                client.write_all(&let_in("15.4"))?;
                query(client)
            }),
        ),
        (
            "in the answer to a query",
            plain,
            Box::new(|client| {
                startup(client)?;
                client.write_all(&let_in("15.4"))?;
                query(client)?;
                client.write_all(&row(&["7000000000000000000", "1", "0/2000028", ""])[..40])
            }),
        ),
        ("after the startup message of pg_receivewal", plain, Box::new(startup)),
        (
            "in a query of pg_receivewal",
            plain,
            Box::new(|client| {
                startup(client)?;
                client.write_all(&let_in("15.4"))?;
                query(client)
            }),
        ),
        // It never answers the end of the COPY, either.
        ("while it streams", plain, Box::new(streaming)),
        (
            "while it streams to pg_receivewal",
            plain,
            Box::new(|client| {
                startup(client)?;
                // It asks for the permissions of files first.
                up_to_streaming(client, &[vec![row(&["0700"])], system(&row(&["8192"]))].concat())
            }),
        ),
        (
            "while it sends: nobody reads what it says",
            plain,
            Box::new(move |client| {
                streaming(client)?;
                client.set_write_timeout(Some(Duration::from_millis(300)))?;
                let wants_reply = message(b'd', &[&b"k"[..], &[0; 16], &[1]].concat());
                // Until its answers have filled all buffers, and it does not read any more.
                while client.write_all(&wants_reply.repeat(1000)).is_ok() {}
                Ok(())
            }),
        ),
    ];
    for (what, ssl, script) in places {
        let (conninfo, reached) = signalled(script, !what.contains("nobody reads"));
        let dir = TempDir::new().unwrap();
        let conninfo = format!("{conninfo} {ssl}");
        ends_soon(what, || {
            let running = Running::start(if what.ends_with("pg_receivewal") {
                let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
                command.arg0("pg_receivewal").arg("-D").arg(dir.path()).args(["-d", &conninfo]);
                command
            } else {
                receive_from(&conninfo, dir.path(), ["--timeout=0"])
            });
            reached.recv_timeout(PATIENCE).unwrap();
            running
        });
    }
}

#[test]
fn told_to_stop_it_stops_while_it_has_no_connection() {
    let dir = TempDir::new().unwrap();
    let quiet = |conninfo: &str| {
        let mut command = receive_from(conninfo, dir.path(), ["--timeout=0"]);
        command.env("FAULT_RESOLVE", "1");
        command
    };
    // A socket whose queue is full: a server that accepts no connections.
    let socket = TempDir::new().unwrap();
    let path = socket.path().join(".s.PGSQL.5432");
    let listener = UnixListener::bind(&path).unwrap();
    let queue = fill(&listener, &path);
    ends_soon("a full queue", || {
        let running = Running::start(quiet(&format!("host={} user=me", socket.path().display())));
        is_waiting(&running);
        running
    });
    drop(queue);
    // A resolver that does not answer.
    if let Some(library) = durable::fault() {
        ends_soon("a resolver", || {
            let mut command = quiet("host=db.example.org user=me");
            command.env("LD_PRELOAD", library);
            let running = Running::start(command);
            is_waiting(&running);
            running
        });
        let mut command = receive_from("host=db.example.org user=me", dir.path(), ["--timeout=1", "--no-loop"]);
        let (status, said) = Running::start({
            command.env("FAULT_RESOLVE", "1").env("LD_PRELOAD", library);
            command
        })
        .end();
        assert!(status == Some(1) && said.contains("timeout expired"), "{said}");
    }
}

/// Connects until nothing more fits; what has been connected.
fn fill(listener: &UnixListener, path: &Path) -> Vec<Socket> {
    SockRef::from(listener).listen(0).unwrap();
    let mut clients = Vec::new();
    loop {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        match client.connect(&SockAddr::unix(path).unwrap()) {
            Ok(()) => clients.push(client),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                return clients;
            }
        }
    }
}

/// It has signal handlers, and so it has begun to wait.
#[track_caller]
fn is_waiting(running: &Running) {
    let status = format!("/proc/{}/status", running.child.id());
    wait_until("the receiver's signal handlers", || {
        let status = fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(caught.trim(), 16).unwrap() >> 14 & 1 == 1
    });
}

#[test]
fn a_time_limit_holds_whatever_comes() {
    let drip = |bytes: Vec<u8>| {
        move |client: &mut TcpStream| {
            for byte in bytes.iter().cycle() {
                client.write_all(&[*byte])?;
                std::thread::sleep(Duration::from_millis(100));
            }
            Ok(())
        }
    };
    let flood = |bytes: Vec<u8>| {
        move |client: &mut TcpStream| loop {
            client.write_all(&bytes)?;
        }
    };
    let notice = message(b'N', b"SNOTICE\0VNOTICE\0C00000\0Mhello\0\0");
    let parameter = message(b'S', b"application_name\0x\0");
    let authentication = message(b'R', &[0, 0, 0, 3]);
    let long = message(b'E', &[b'x'; 20_000]);
    let let_in_and = |script: Script| {
        fake(move |client| {
            client.write_all(&let_in("15.4"))?;
            query(client)?;
            script(client)
        })
    };
    let startup_expired = "timeout expired";
    let silent = "the server has not answered for 1 s";
    let cases: [(&str, String, &str); 10] = [
        ("bytes before authentication", fake(drip(long.clone())), startup_expired),
        ("notices before authentication", fake(flood(notice.clone())), startup_expired),
        ("parameters before authentication", fake(flood(parameter.clone())), startup_expired),
        ("questions without end", fake(flood(authentication)), "timeout expired"),
        ("notices instead of an answer", let_in_and(Box::new(flood(notice.clone()))), silent),
        ("parameters instead of an answer", let_in_and(Box::new(flood(parameter.clone()))), silent),
        ("an answer in drips", let_in_and(Box::new(drip(row(&["7000000000000000000"; 2000])))), silent),
        ("empty commands instead of an answer", let_in_and(Box::new(flood(message(b'I', b"")))), silent),
        ("notices in the stream", streams(flood(notice)), silent),
        ("drips in the stream", streams(drip(message(b'd', &[b'w'; 20_000]))), silent),
    ];
    for (what, conninfo, why) in cases {
        given_up(what, &format!("{conninfo} password=secret"), why);
    }
    let what = "a TLS record in drips";
    let drip = drip([&[0x16, 3, 3, 0x3F, 0xFF, 2, 0, 0x3F, 0xF0][..], &[0; 5000]].concat());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = startup(&mut client).and_then(|()| client.write_all(b"S")).and_then(|()| drip(&mut client));
        }
    });
    let conninfo = format!("host=127.0.0.1 port={port} user=me sslmode=require");
    let (status, said) = Running::start(receive_from(&conninfo, TempDir::new().unwrap().path(), ["--timeout=1", "--no-loop"])).end();
    assert_eq!(status, Some(1), "{what}: {said}");
    assert!(said.contains("timeout expired"), "{what}: {said}");
}

/// Within 256 MiB of memory of its own: data, heap and stacks. Linux: RLIMIT_DATA.
fn limited(command: Command) -> Command {
    let mut limited = Command::new("prlimit");
    limited.arg("--data=268435456").arg("--").arg(command.get_program()).args(command.get_args());
    limited
}

#[test]
fn what_a_server_sends_without_end_does_not_fill_the_memory() {
    // A head that says that a message has so many bytes, and as many as anybody wants.
    let endless = |tag: u8, len: u32, start: &'static [u8]| {
        move |client: &mut TcpStream| {
            client.write_all(&[&[tag], &len.to_be_bytes()[..], start].concat())?;
            let chunk = vec![b'x'; 1 << 16];
            loop {
                client.write_all(&chunk)?;
            }
        }
    };
    let let_in_and = |script: Script| {
        fake(move |client| {
            client.write_all(&let_in("15.4"))?;
            query(client)?;
            script(client)
        })
    };
    let column = [&b"\0\x01c\0"[..], &[0; 18]].concat();
    let head = message(b'T', &column);
    let rows = move |value: usize| {
        let head = head.clone();
        Box::new(move |client: &mut TcpStream| {
            client.write_all(&head)?;
            let row = message(b'D', &[&b"\0\x01"[..], &(value as u32).to_be_bytes(), &vec![b'7'; value]].concat());
            let rows = row.repeat((1 << 16) / row.len() + 1);
            loop {
                client.write_all(&rows)?;
            }
        })
    };
    let parameters = || {
        Box::new(|client: &mut TcpStream| {
            for number in 0u64.. {
                let many: Vec<u8> =
                    (0..500).flat_map(|at| message(b'S', format!("p{number}_{at}\0{}\0", "v".repeat(100)).as_bytes())).collect();
                client.write_all(&many)?;
            }
            Ok(())
        })
    };
    let notices = Box::new(|client: &mut TcpStream| {
        let notice = message(b'N', &[b"SNOTICE\0C00000\0M", &vec![0xFF; 900_000][..], b"\0\0"].concat());
        // 450 MB, far more than it may have.
        for _ in 0..500 {
            client.write_all(&notice)?;
        }
        Ok(())
    });
    let columns = message(b'T', &[&1500u16.to_be_bytes()[..], &[&[b'c'; 600][..], &[0; 19]].concat().repeat(1500)].concat());
    let tables = Box::new(move |client: &mut TcpStream| {
        loop {
            client.write_all(&columns)?;
        }
    });
    let cases: [(&str, String, &str); 11] = [
        (
            "a row of 1 GB",
            let_in_and(Box::new(endless(b'D', 1 << 30, b"\0\x01\x3f\xff\xff\xff"))),
            "message of type \"D\" says that its length is 1073741824",
        ),
        ("rows of 15 MB", let_in_and(rows(15 << 20)), "the server sent more than 100663296 bytes of rows"),
        ("rows of one byte", let_in_and(rows(1)), "the server sent more than 100663296 bytes of rows"),
        ("tables", let_in_and(tables), "the server sent more than 100663296 bytes of rows"),
        ("an error of 1 GB", let_in_and(Box::new(endless(b'E', 1 << 30, b"SERROR\0M"))), "message of type \"E\" says that its length is "),
        (
            "a notice of 60 MB",
            let_in_and(Box::new(endless(b'N', 60 << 20, b"SNOTICE\0M"))),
            "message of type \"N\" says that its length is ",
        ),
        ("large notices", let_in_and(notices), "server closed the connection"),
        ("parameters", let_in_and(parameters()), "the server sent more than 1048576 bytes of parameters"),
        ("parameters before anything else", fake(parameters()), "the server sent more than 1048576 bytes of parameters"),
        ("a parameter of 1 GB", let_in_and(Box::new(endless(b'S', 1 << 30, b"name\0"))), "message of type \"S\" says that its length is "),
        ("a message in the stream", streams(endless(b'd', 64 << 20, b"w")), "the server sent "),
    ];
    for (what, conninfo, why) in cases {
        let dir = TempDir::new().unwrap();
        let command = limited(receive_from(&conninfo, dir.path(), ["--timeout=150", "--no-loop"]));
        let (status, said) = Running::start(command).end();
        assert_eq!(status, Some(1), "{what}: {said}");
        assert!(said.contains(why), "{what}: {}", said.chars().take(300).collect::<String>());
    }
}

/// Commands that ask a server by SQL end by a time limit, whatever it does and however slowly, and by a signal at once.
#[test]
fn commands_that_ask_by_sql_are_kept_by_no_server() {
    fn after_login(script: fn(&mut TcpStream) -> std::io::Result<()>) -> Script {
        Box::new(move |client| {
            startup(client)?;
            client.write_all(&let_in("15.4"))?;
            query(client)?;
            script(client)
        })
    }
    let silent = || after_login(wait_for_ever);
    let at_once = || Box::new(startup) as Script;
    // Never done with the answer.
    let drips = || {
        after_login(|client| {
            let row = message(b'D', &[0; 100_000]);
            client.set_read_timeout(Some(Duration::from_millis(50)))?;
            // A byte whenever there is nothing to read.
            for byte in row {
                if client.read(&mut [0; 1]).is_ok() {
                    break;
                }
                client.write_all(&[byte])?;
            }
            Ok(())
        })
    };
    let fixture = pgwal_testkit::fixtures::all().into_iter().find(|fixture| fixture.major == 15).unwrap();
    let segment = fixture.segments()[0].display().to_string();
    let out = TempDir::new().unwrap();
    let names = out.path().join("names.json").display().to_string();
    let lines = [
        vec!["names", "-o", &names, "--dbname"],
        vec!["dump", &segment, "--show-names", "--dbname"],
        vec!["stats", &segment, "--by", "relation", "--dbname"],
        vec!["doctor", "-w", "-d"],
        vec!["slot", "list", "-w", "-d"],
    ];
    let command = |line: &[&str], conninfo: &str| {
        // Where the tests run in the background of a shell, SIGINT is ignored.
        let mut command = Command::new("env");
        command.args(["--default-signal=INT,TERM", env!("CARGO_BIN_EXE_pgwal")]).args(line).arg(conninfo).stdin(Stdio::null());
        command
    };
    std::thread::scope(|scope| {
        for (what, script) in [("silent", &silent as &(dyn Fn() -> Script + Sync)), ("drips", &drips), ("silent at once", &at_once)] {
            for line in &lines {
                let command = &command;
                scope.spawn(move || {
                    let (conninfo, _reached) = signalled(script(), true);
                    let conninfo = format!("{conninfo} sslmode=disable connect_timeout=2");
                    let (status, said) = Running::start(command(line, &conninfo)).end();
                    let expected = if line[0] == "doctor" { 2 } else { 1 };
                    assert_eq!(status, Some(expected), "{what}, {line:?}: {said}");
                    assert!(
                        said.contains("timeout expired") || said.contains("did not answer a query in time"),
                        "{what}, {line:?}: {said}"
                    );
                });
            }
        }
    });
    for line in &lines {
        for told in ["-INT", "-TERM"] {
            let (conninfo, reached) = signalled(after_login(|_| Ok(())), true);
            let running = Running::start(command(line, &format!("{conninfo} sslmode=disable")));
            reached.recv_timeout(PATIENCE).unwrap();
            let begin = Instant::now();
            let (status, said) = running.stop_by(told);
            assert_eq!((status, said.as_str()), (None, ""), "{line:?}");
            // It would take ten seconds at least to give the server up.
            assert!(begin.elapsed() < Duration::from_secs(9), "{line:?}, {told}");
        }
    }
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}
