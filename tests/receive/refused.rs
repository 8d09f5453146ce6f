//! Servers that refuse, and what is no server.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use pgwal::{Lsn, RmgrId, WalFormat};
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, RecordBuilder, Wal, relation};

use super::*;

/// What `pgwal receive` comes to by itself.
#[track_caller]
fn ended(conninfo: &str, args: &[&str]) -> (Option<i32>, String) {
    let dir = TempDir::new().unwrap();
    let ended = Running::start(receive_from(conninfo, dir.path(), args)).end();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "{}", ended.1);
    ended
}

/// With a time limit of a second it ends with `why`. A machine that is busy may not come to the place that stalls within a second: then
/// it has more, and `why` says so.
#[track_caller]
pub fn given_up(what: &str, conninfo: &str, why: &str) {
    let mut said = Vec::new();
    let given_up = [1, 5, 30].into_iter().any(|seconds| {
        let begin = Instant::now();
        let (status, now) = ended(conninfo, &[&format!("--timeout={seconds}"), "--no-loop"]);
        assert_eq!(status, Some(1), "{what}: {now}");
        let is_why = now.contains(&why.replace("for 1 s", &format!("for {seconds} s")));
        said.push((now, begin.elapsed()));
        is_why && begin.elapsed() < Duration::from_secs(seconds + 17)
    });
    assert!(given_up, "{what}: {said:?}, expected {why}");
}

/// It tries again, and says why.
#[track_caller]
fn retries(conninfo: &str, why: &str) {
    let dir = TempDir::new().unwrap();
    let running = Running::start(receive_from(conninfo, dir.path(), ["--no-password"]));
    running.wait_for(why);
    running.wait_for("; trying again in 0.5 s\n");
    running.wait_for("; trying again in 1 s\n");
    assert_eq!(running.stop_by("-INT").0, Some(0));
}

#[test]
fn who_is_not_let_in_ends_at_once() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "receive, passwords") else { return };
    let server = postgres.start_tcp(&["--wal-segsize=1"], SETTINGS).unwrap();
    server.sql("CREATE ROLE r LOGIN REPLICATION PASSWORD 'right'; CREATE ROLE nobody LOGIN PASSWORD 'right'").unwrap();
    let rules = "local all all trust\nhost replication r,nobody 127.0.0.1/32 scram-sha-256\n";
    server.put("pg_hba.conf", rules.as_bytes()).unwrap();
    server.control("reload").unwrap();
    let conninfo = |user: &str, more: &str| format!("host=127.0.0.1 port={} sslmode=disable user={user} {more}", server.port());
    // The rules are read in a moment.
    wait_until("pg_hba.conf", || {
        ended(&conninfo("r", "password=wrong"), &["-w"]).1.contains("password authentication failed for user \"r\"")
    });
    for (conninfo, why) in [
        (conninfo("r", "password=wrong"), "FATAL:  password authentication failed for user \"r\""),
        (conninfo("r", "passfile=/nonexistent"), "no password supplied"),
        (conninfo("postgres", ""), "no pg_hba.conf entry for replication connection from host \"127.0.0.1\", user \"postgres\""),
        (conninfo("nobody", "password=right"), "must be superuser or replication role to start walsender"),
        (conninfo("r", "password=right sslmode=require"), "server does not support SSL, but SSL was required"),
    ] {
        let (status, said) = ended(&conninfo, &["--no-password"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.contains(why) && !said.contains("trying again"), "{said}");
    }
}

#[test]
fn who_is_not_there_may_come() {
    let dead = HeldPort::new().unwrap();
    let refused = format!("host=127.0.0.1 port={}", dead.port());
    for (conninfo, why) in
        [(refused.as_str(), "Connection refused"), ("host=no.such.host.invalid", "could not translate host name to address: ")]
    {
        let (status, said) = ended(conninfo, &["--no-loop"]);
        assert_eq!(status, Some(1), "{said}");
        assert!(said.starts_with("pgwal: connection to server at ") && said.contains(why) && !said.contains("trying again"), "{said}");
        retries(conninfo, why);
    }
}

#[test]
fn a_server_without_walsenders() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "receive, minimal") else { return };
    let server = postgres.start(&[], "wal_level = minimal\nmax_wal_senders = 0").unwrap();
    let why = "number of requested standby connections exceeds max_wal_senders (currently 0)";
    let (status, said) = ended(&conninfo(&server), &["--no-loop"]);
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains(why), "{said}");
    // Somebody may raise it.
    retries(&conninfo(&server), why);
}

/// What a server says that lets everybody in, and then `script`; as often as it is asked.
pub fn fake(script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let _ = startup(&mut client).and_then(|()| script(&mut client));
        }
    });
    format!("host=127.0.0.1 port={port} user=me sslmode=disable")
}

pub fn startup(client: &mut TcpStream) -> std::io::Result<()> {
    let mut len = [0; 4];
    client.read_exact(&mut len)?;
    client.read_exact(&mut vec![0; u32::from_be_bytes(len) as usize - 4])
}

pub fn query(client: &mut TcpStream) -> std::io::Result<()> {
    client.read_exact(&mut [0; 1])?;
    startup(client)
}

pub fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    [&[tag], &(body.len() as u32 + 4).to_be_bytes()[..], body].concat()
}

pub fn let_in(version: &str) -> Vec<u8> {
    let version = format!("server_version\0{version}\0");
    [message(b'R', &[0; 4]), message(b'S', version.as_bytes()), message(b'Z', b"I")].concat()
}

/// An answer of one row.
pub fn row(values: &[&str]) -> Vec<u8> {
    let column = |name: &str| [name.as_bytes(), &[0; 19]].concat();
    let count = (values.len() as u16).to_be_bytes();
    let columns = [count.to_vec(), values.iter().flat_map(|_| column("c")).collect()].concat();
    let fields = values.iter().flat_map(|value| [&(value.len() as u32).to_be_bytes(), value.as_bytes()].concat()).collect();
    [message(b'T', &columns), message(b'D', &[count.to_vec(), fields].concat()), message(b'C', b"X\0"), message(b'Z', b"I")].concat()
}

/// Answers up to START_REPLICATION, and then says this.
fn streaming(said: Vec<u8>) -> String {
    streams(move |client| client.write_all(&said))
}

/// Answers up to START_REPLICATION, and goes on so.
pub fn streams(script: impl Fn(&mut TcpStream) -> std::io::Result<()> + Send + 'static) -> String {
    fake(move |client| {
        up_to_streaming(client, &system(&row(&["8192"])))?;
        script(client)
    })
}

/// What a server says of itself before it streams; `block_size` is what it says to SHOW block_size.
pub fn system(block_size: &[u8]) -> Vec<Vec<u8>> {
    vec![row(&["7000000000000000000", "1", "0/2000028", ""]), row(&["16MB"]), row(&["8192"]), block_size.to_vec()]
}

/// Lets the client in, gives it these answers, and starts to stream.
pub fn up_to_streaming(client: &mut TcpStream, answers: &[Vec<u8>]) -> std::io::Result<()> {
    client.write_all(&let_in("15.4"))?;
    for answer in answers {
        query(client)?;
        client.write_all(answer)?;
    }
    query(client)?;
    client.write_all(&message(b'W', &[0, 0, 0]))
}

/// An error that ends the command and leaves the connection usable.
fn refusal(text: &str) -> Vec<u8> {
    let error = message(b'E', format!("SERROR\0VERROR\0C42601\0M{text}\0\0").as_bytes());
    [error, message(b'Z', b"I")].concat()
}

/// The server is asked for the size of blocks, and what it says is believed: the WAL need not show it, or may be damaged where it does.
#[test]
fn the_size_of_blocks_is_the_servers() {
    let wide = WalFormat { block_size: 32768, ..WalFormat::new(15) };
    let mut wal = Wal::new(wide).starting_at(Lsn(0x200_0000));
    let image = ImageBuilder::new(&vec![7; 32768]);
    wal.record(&RecordBuilder::new(RmgrId::XLOG, 0xB0).block(BlockBuilder::new(0, relation(), 0).image(image)));
    let end = wal.end();
    let bytes = wal.bytes()[..(end - wal.start()) as usize].to_vec();
    let sized = |answer: Vec<u8>| {
        let data = bytes.clone();
        fake(move |client| {
            up_to_streaming(client, &system(&answer))?;
            let wal = [b"w", &0x200_0000u64.to_be_bytes()[..], &[0; 16], &data].concat();
            client.write_all(&message(b'd', &wal))?;
            std::io::copy(client, &mut std::io::sink()).map(drop)
        })
    };
    let run = |answer: Vec<u8>| {
        let dir = TempDir::new().unwrap();
        let endpos = Lsn(end.0 - 1).to_string();
        Running::start(receive_from(&sized(answer), dir.path(), ["-q", "--no-loop", "--endpos", &endpos])).end()
    };
    assert_eq!(run(row(&["32768"])), (Some(0), String::new()));
    let (status, said) = run(row(&["8192"]));
    assert!(status == Some(1) && said.contains("the WAL that the server sent is damaged: ") && said.contains("32768"), "{said}");
    // Where it refuses to say, the image shows it.
    assert_eq!(run(refusal("unrecognized configuration parameter \"block_size\"")), (Some(0), String::new()));
    for nonsense in ["many", "0", "12345", "64kB", ""] {
        let why = format!("pgwal: the server answered SHOW block_size with \"{nonsense}\": expected a size\n");
        assert_eq!(run(row(&[nonsense])), (Some(1), why));
    }
    let fatal = message(b'E', b"SFATAL\0VFATAL\0C57P01\0Mterminating connection\0\0");
    let (status, said) = run(fatal);
    assert!(status == Some(1) && said.contains("FATAL:  terminating connection"), "{said}");
}

#[test]
fn what_is_no_server_or_says_nonsense() {
    let wal = |start: u64, data: &[u8]| message(b'd', &[b"w", &start.to_be_bytes()[..], &[0; 16], data].concat());
    // Of those that may be a network's fault there may be better ones; those that are sent on purpose come again.
    let retried: [(&str, String, &str); 5] = [
        (
            "no server",
            fake(|client| client.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")),
            "message of type \"H\" says that its length is ",
        ),
        ("nothing", fake(|_| Ok(())), "server closed the connection unexpectedly"),
        (
            "half a message",
            streaming(wal(0x200_0000, &[0; 9000])[..5000].to_vec()),
            "closed the connection in the middle of a message, after 5000 bytes",
        ),
        ("garbage in the stream", streaming(vec![0xEE; 100]), "message of type \"\\xee\" (0xEE) where CopyData was to come"),
        ("a length", streaming(b"d\x7f\xff\xff\xff".to_vec()), "message of type \"d\" says that its length is 2147483647"),
    ];
    for (what, conninfo, why) in retried {
        let dir = TempDir::new().unwrap();
        let running = Running::start(receive_from(&conninfo, dir.path(), ["--no-loop"]));
        let (status, said) = running.end();
        assert_eq!(status, Some(1), "{what}: {said}");
        assert!(said.contains(why), "{what}: {said}");
        retries(&conninfo, why);
    }
    let fixed = [
        (
            "a message of another protocol",
            streaming(message(b'd', b"x123")),
            "the server sent a replication message of type \"x\": expected one of w, k",
        ),
        (
            "a short message",
            streaming(message(b'd', b"w123")),
            "the server sent a replication message of type \"w\" with 4 bytes: expected 25",
        ),
        ("WAL from elsewhere", streaming(wal(0x300_0000, &[1; 100])), "the server sent WAL from 0/03000000 on: expected 0/02000000"),
        (
            "zeroes",
            streaming(wal(0x200_0000, &[0; 8192])),
            "the WAL that the server sent is damaged: 000000010000000000000002:0x0 (0/02000000): ",
        ),
        ("an old server", fake(|client| client.write_all(&let_in("9.6.24"))), "the server is of PostgreSQL 9, whose WAL is not known"),
        ("a server without a version", fake(|client| client.write_all(&let_in("devel"))), "the server does not say its version"),
        (
            "no walsender",
            fake(|client| {
                client.write_all(&let_in("15.4"))?;
                query(client)?;
                let error = message(b'E', b"SERROR\0VERROR\0C42601\0Msyntax error at or near \"IDENTIFY_SYSTEM\"\0\0");
                client.write_all(&[error, message(b'Z', b"I")].concat())
            }),
            "ERROR:  syntax error at or near \"IDENTIFY_SYSTEM\"",
        ),
        (
            "another answer",
            fake(|client| {
                client.write_all(&let_in("15.4"))?;
                query(client)?;
                client.write_all(&row(&["x", "1", "0/0"]))
            }),
            "the server answered IDENTIFY_SYSTEM with x, 1, 0/0: expected a system identifier, a timeline and an LSN",
        ),
    ];
    for (what, conninfo, why) in fixed {
        let (status, said) = Running::start(receive_from(&conninfo, TempDir::new().unwrap().path(), ["-q"])).end();
        assert_eq!(status, Some(1), "{what}: {said}");
        assert_eq!(said.lines().count(), 1, "{what}: {said}");
        assert!(said.starts_with(&format!("pgwal: {why}")), "{what}: {said}");
    }
}

#[test]
fn a_server_that_stalls_is_given_up_wherever_it_does() {
    let stalls: [(String, &str); 3] = [
        (fake(|client| client.read(&mut [0; 1]).map(drop)), "timeout expired"),
        (
            fake(|client| {
                client.write_all(&let_in("15.4"))?;
                std::io::copy(client, &mut std::io::sink()).map(drop)
            }),
            "the server has not answered for 1 s",
        ),
        (streams(|client| std::io::copy(client, &mut std::io::sink()).map(drop)), "the server has not answered for 1 s"),
    ];
    for (conninfo, why) in stalls {
        given_up("stalls", &conninfo, why);
    }
}

#[test]
fn options_that_are_none() {
    for (args, why) in [
        (&["-D", ".", "--on-damage", "maybe"][..], "[possible values: stop, warn]"),
        (&["-D", ".", "-Z", "gzip:10"], "expected a level from 1 to 9"),
        (&["-D", ".", "-Z", "lz4:1"], "lz4 has no levels"),
        (&["-D", ".", "-Z", "bzip2"], "expected none, gzip, lz4 or zstd"),
        (&["-D", ".", "--endpos", "5"], "invalid value '5'"),
        (&["-D", ".", "--timeout", "soon"], "invalid value 'soon'"),
        (&["-D", ".", "--status-interval", "x"], "invalid value 'x'"),
        (&["-D", ".", "--status-interval=-1"], "expected 0 to 315360000 seconds"),
        (&["-D", ".", "--timeout", "99999999999999999999"], "expected 0 to 315360000 seconds"),
        (&["-D", ".", "--create-slot"], "--slot"),
        (&["-D", ".", "-S", "s", "--drop-slot"], "cannot be used with"),
        (&["-S", "s"], "required"),
    ] {
        let ran = Command::new(env!("CARGO_BIN_EXE_pgwal")).arg("receive").args(args).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(2), "{args:?}: {said}");
        assert!(said.contains(why), "{args:?}: {said}");
    }
}
