//! Connections to real servers.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use pgwal_stream::connection::{AuthError, ConnectError, Connection, CopyEvent, CopyStart, Error, Mode};
use pgwal_stream::conninfo::{Config, Environment};
use pgwal_testkit::server::{HeldPort, PATIENCE, Postgres, Server, wait_until};

/// Connects as `postgres` with nothing in the home directory and no variables, unless `env` has some.
fn connect_in(env: &Environment, conninfo: &str, mode: Mode) -> Result<Connection, ConnectError> {
    let config = Config::parse(conninfo, env).unwrap_or_else(|error| panic!("{conninfo}: {error}"));
    Connection::connect(&config, mode)
}

fn nowhere() -> Environment {
    Environment::new("postgres", Path::new("/nonexistent"))
}

fn connect(conninfo: &str) -> Result<Connection, ConnectError> {
    connect_in(&nowhere(), conninfo, Mode::Ordinary)
}

fn refused(conninfo: &str) -> String {
    connect(conninfo).expect_err(conninfo).to_string()
}

fn ask(connection: &mut Connection, sql: &str) -> String {
    connection.query(sql).unwrap()[0].text(0, 0).unwrap().to_owned()
}

fn on_socket(server: &Server) -> String {
    format!("host={} port={}", server.socket().display(), server.port())
}

fn on_tcp(server: &Server) -> String {
    format!("host=127.0.0.1 port={}", server.port())
}

#[test]
fn queries_and_replication() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "queries_and_replication") else { return };
    let server = postgres.start(&[], "wal_level = replica\nmax_wal_senders = 4").unwrap();
    let socket = on_socket(&server);

    let mut sql = connect(&format!("{socket} application_name=mine options='-c work_mem=1MB'")).unwrap();
    assert_eq!((sql.major(), sql.parameter("in_hot_standby")), (Some(15), Some("off")));
    assert_eq!(ask(&mut sql, "SELECT current_setting('work_mem') || current_setting('application_name')"), "1MBmine");
    let sets = sql.query("SELECT 1 AS a, NULL AS b; CREATE TABLE t (x int); SELECT 'x' WHERE false").unwrap();
    assert_eq!(sets.len(), 3);
    assert_eq!((sets[0].columns[0].name.as_str(), sets[0].columns[0].type_oid), ("a", 23));
    assert_eq!((sets[0].text(0, 0), sets[0].text(0, 1)), (Some("1"), None));
    assert_eq!((sets[1].tag.as_str(), sets[2].rows.len()), ("CREATE TABLE", 0));

    // After an error the connection goes on.
    match sql.query("SELECT 1/0") {
        Err(Error::Server(error)) => assert_eq!((error.code.as_str(), error.message.as_str()), ("22012", "division by zero")),
        other => panic!("{other:?}"),
    }
    sql.query("DO $$ BEGIN RAISE NOTICE 'hello'; END $$").unwrap();
    assert_eq!(sql.take_notices()[0].message, "hello");

    let copy = sql.copy_out("COPY (SELECT generate_series(1, 3)) TO STDOUT").unwrap();
    assert_eq!(copy, CopyStart::Started(vec![]));
    let mut lines = Vec::new();
    while let CopyEvent::Data(line) = sql.next_copy(None).unwrap() {
        lines.extend_from_slice(line);
    }
    assert_eq!(lines, b"1\n2\n3\n");
    assert_eq!(sql.finish_copy(None).unwrap()[0].tag, "COPY 3");
    assert!(matches!(sql.query("COPY t FROM STDIN"), Err(Error::Server(_))));
    assert_eq!(ask(&mut sql, "SELECT 'still here'"), "still here");

    // Canceled from outside.
    let cancel = sql.cancel_handle().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = 'SELECT pg_sleep(60)'";
            wait_until("the query", || server.sql(sleeps).unwrap() == "1");
            cancel.cancel().unwrap();
        });
        match sql.query("SELECT pg_sleep(60)") {
            Err(Error::Server(error)) => assert_eq!(error.code, "57014"),
            other => panic!("{other:?}"),
        }
    });

    let mut wal = connect_in(&nowhere(), &socket, Mode::Replication).unwrap();
    let system = wal.query("IDENTIFY_SYSTEM").unwrap().remove(0);
    assert_eq!(system.text(0, system.column("timeline").unwrap()), Some("1"));
    assert_eq!(ask(&mut wal, "SHOW wal_segment_size"), "16MB");
    assert!(matches!(wal.query("TIMELINE_HISTORY 7"), Err(Error::Server(_))));
    let start = ask(&mut sql, "SELECT pg_current_wal_lsn()");
    assert_eq!(wal.copy_both(&format!("START_REPLICATION PHYSICAL {start} TIMELINE 1")).unwrap(), CopyStart::Started(vec![]));
    ask(&mut sql, "SELECT pg_logical_emit_message(false, 'p', repeat('x', 3000000))");
    let mut received = 0;
    while received < 3_000_000 {
        match wal.next_copy(Some(Instant::now() + PATIENCE)).unwrap() {
            CopyEvent::Data(data) if data[0] == b'w' => received += data.len() - 25,
            CopyEvent::Data(_) => {}
            other => panic!("{other:?}"),
        }
    }
    // A standby status update that asks for an answer.
    let mut status = vec![b'r'];
    status.extend([0; 33]);
    status[33] = 1;
    wal.send_copy(&status).unwrap();
    // Stopped: by time, and by the flag, also where there is none.
    let stop = Arc::new(AtomicBool::new(false));
    wal.set_stop(Some(stop.clone()));
    let until = Instant::now() + Duration::from_millis(500);
    loop {
        match wal.next_copy(Some(until)).unwrap() {
            CopyEvent::Data(_) => {}
            other => break assert_eq!(other, CopyEvent::Timeout),
        }
    }
    let setter = std::thread::spawn(move || {
        // Most likely while it waits already; before that would be as good.
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Ordering::Relaxed);
    });
    loop {
        match wal.next_copy(None).unwrap() {
            CopyEvent::Data(_) => {}
            other => break assert_eq!(other, CopyEvent::Interrupted),
        }
    }
    setter.join().unwrap();
    let sets = wal.finish_copy(Some(PATIENCE)).unwrap();
    assert_eq!(sets.iter().map(|set| set.tag.as_str()).collect::<Vec<_>>(), ["START_STREAMING", "START_REPLICATION"]);
    wal.set_stop(None);

    let CopyStart::Started(before) = wal.copy_out("BASE_BACKUP (CHECKPOINT 'fast')").unwrap() else { panic!() };
    assert_eq!(before.len(), 2, "{before:?}");
    let mut bytes = 0;
    while let CopyEvent::Data(data) = wal.next_copy(None).unwrap() {
        bytes += data.len();
    }
    assert!(bytes > 10_000_000);
    assert_eq!(wal.finish_copy(None).unwrap()[0].column("recptr"), Some(0));
    assert_eq!(ask(&mut wal, "SHOW wal_level"), "replica");
    wal.close();

    // A role that is not there, and a database.
    let message = refused(&format!("{socket} user=nobody"));
    let place = format!("connection to server on socket \"{}/.s.PGSQL.5432\" failed: ", server.socket().display());
    assert_eq!(message, format!("{place}FATAL:  role \"nobody\" does not exist"));
    assert_eq!(refused(&format!("{socket} dbname=none")), format!("{place}FATAL:  database \"none\" does not exist"));
    assert!(refused(&format!("{socket} requirepeer=daemon")).contains("requirepeer specifies \"daemon\", but actual peer user name is"));
}

#[test]
fn passwords_hosts_and_kinds() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "passwords_hosts_and_kinds") else { return };
    let server = postgres.start_tcp(&[], "wal_level = replica\nmax_wal_senders = 4").unwrap();
    for (role, encryption) in [("plain", "scram-sha-256"), ("scram", "scram-sha-256"), ("hashed", "md5"), ("other", "md5")] {
        server
            .sql(&format!("SET password_encryption = '{encryption}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'pass word'"))
            .unwrap();
    }
    let hba = "local all all trust\nlocal replication all trust\nhost all plain 127.0.0.1/32 password\nhost all,replication scram 127.0.0.1/32 \
               scram-sha-256\nhost all hashed 127.0.0.1/32 md5\n";
    server.put("pg_hba.conf", hba.as_bytes()).unwrap();
    server.reload().unwrap();
    let tcp = format!("{} dbname=postgres", on_tcp(&server));

    for role in ["plain", "scram", "hashed"] {
        let mut connection = connect(&format!("{tcp} user={role} password='pass word'")).unwrap();
        assert_eq!(ask(&mut connection, "SELECT current_user"), role);
        let wrong = refused(&format!("{tcp} user={role} password=wrong"));
        let place = format!("connection to server at \"127.0.0.1\", port {} failed: ", server.port());
        assert!(wrong.starts_with(&format!("{place}FATAL:  password authentication failed for user \"{role}\"")), "{wrong}");
        assert!(refused(&format!("{tcp} user={role}")).ends_with("no password supplied"));
    }
    // Not in pg_hba.conf: in the server's words, and once for each way that sslmode allows.
    let message = refused(&format!("{tcp} user=other password=x sslmode=disable"));
    assert!(
        message.contains("no pg_hba.conf entry for host \"127.0.0.1\", user \"other\", database \"postgres\", no encryption"),
        "{message}"
    );
    assert!(refused(&format!("{tcp} user=scram sslmode=require")).ends_with("server does not support SSL, but SSL was required"));
    assert!(refused(&format!("{tcp} user=scram password=x channel_binding=require")).contains("SSL is not in use"));
    match connect(&format!("{tcp} user=plain password='pass word' require_auth=scram-sha-256")).unwrap_err().last() {
        Some(Error::Auth(AuthError::NotAllowed { method })) => assert_eq!(method, "password"),
        other => panic!("{other:?}"),
    }

    // The password file, also for replication; one that others can read does not count.
    let home = tempfile::tempdir().unwrap();
    let passfile = home.path().join(".pgpass");
    fs::write(&passfile, "# ours\nnohost:*:*:*:no\n127.0.0.1:*:replication:scram:pass word\n127.0.0.1:*:postgres:hashed:wrong\n").unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let env = Environment::new("scram", home.path());
    connect_in(&env, &on_tcp(&server), Mode::Replication).unwrap();
    assert!(connect_in(&env, &tcp, Mode::Ordinary).unwrap_err().to_string().ends_with("no password supplied"));
    let message = connect_in(&env, &format!("{tcp} user=hashed"), Mode::Ordinary).unwrap_err().to_string();
    assert!(message.ends_with(&format!("password retrieved from file \"{}\"", passfile.display())), "{message}");
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o640)).unwrap();
    let message = connect_in(&env, &on_tcp(&server), Mode::Replication).unwrap_err().to_string();
    assert!(message.starts_with(&format!("WARNING: password file \"{}\" has group or world access", passfile.display())), "{message}");

    // A service, and variables.
    fs::write(home.path().join(".pg_service.conf"), format!("[a]\nport=1\n\n[b]\nhost=127.0.0.1\nport={}\nuser=hashed\n", server.port()))
        .unwrap();
    let env = env.with("PGSERVICE", "b").with("PGUSER", "scram").with("PGPASSWORD", "pass word").with("PGDATABASE", "postgres");
    assert_eq!(ask(&mut connect_in(&env, "", Mode::Ordinary).unwrap(), "SELECT current_user"), "hashed");

    let watched = "keepalives_idle=30 keepalives_interval=5 keepalives_count=3 tcp_user_timeout=20000 connect_timeout=10";
    connect(&format!("{tcp} user=scram password='pass word' {watched}")).unwrap();
    connect(&format!("{tcp} user=scram password='pass word' keepalives=0")).unwrap();

    // Several hosts, of which the first are dead.
    let held = HeldPort::new().unwrap();
    let (dead, port) = (held.port(), server.port());
    let socket = server.socket().display();
    let hosts = format!("host=no.such.host.invalid,127.0.0.1,/nonexistent,{socket} port={dead},{dead},{dead},{port}");
    connect(&hosts).unwrap();
    let message = refused(&format!("host=127.0.0.1,/nonexistent port={dead}"));
    assert_eq!(message.lines().count(), 2);
    assert!(message.contains(&format!("at \"127.0.0.1\", port {dead} failed: could not connect: Connection refused")), "{message}");
    connect(&format!("postgresql://127.0.0.1:{dead},{}:{port}/?load_balance_hosts=random", socket.to_string().replace('/', "%2F")))
        .unwrap();

    // The kind of server.
    let standby = server.standby_on(dead).unwrap();
    let both = format!("host={},{socket} port={},{port}", standby.socket().display(), standby.port());
    let kind = |connection: &mut Connection| ask(connection, "SHOW port").parse::<u16>().unwrap();
    for (wanted, expected) in [
        ("any", &standby),
        ("read-write", &server),
        ("read-only", &standby),
        ("primary", &server),
        ("standby", &standby),
        ("prefer-standby", &standby),
    ] {
        for mode in [Mode::Ordinary, Mode::Replication] {
            let mut connection = connect_in(&nowhere(), &format!("{both} target_session_attrs={wanted}"), mode).unwrap();
            assert_eq!(kind(&mut connection), expected.port(), "{wanted}");
        }
    }
    let primary = on_socket(&server);
    connect(&format!("{primary} target_session_attrs=prefer-standby")).unwrap();
    assert!(refused(&format!("{primary} target_session_attrs=standby")).ends_with("server is not in hot standby mode"));
    assert!(refused(&format!("{primary} target_session_attrs=read-only")).ends_with("session is not read-only"));
    assert!(refused(&format!("{} target_session_attrs=read-write", on_socket(&standby))).ends_with("session is read-only"));
}

/// Certificates made by the openssl program.
struct Authority {
    dir: tempfile::TempDir,
}

impl Authority {
    fn new() -> io::Result<Authority> {
        let made = Authority { dir: tempfile::tempdir()? };
        made.openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=authority -keyout ca.key -out ca.crt")?;
        Ok(made)
    }

    /// Makes `<file>.crt` and `<file>.key`.
    fn sign(&self, file: &str, subject: &str, extensions: &str) -> io::Result<()> {
        fs::write(self.dir.path().join("ext"), format!("basicConstraints=CA:FALSE\n{extensions}"))?;
        self.openssl(&format!("req -new -newkey rsa:2048 -nodes -subj {subject} -keyout {file}.key -out {file}.csr"))?;
        let sign = "x509 -req -days 30 -sha384 -CA ca.crt -CAkey ca.key -CAcreateserial -extfile ext";
        self.openssl(&format!("{sign} -in {file}.csr -out {file}.crt"))
    }

    fn openssl(&self, args: &str) -> io::Result<()> {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(self.dir.path()).output()?;
        if output.status.success() { Ok(()) } else { Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned())) }
    }

    fn path(&self, file: &str) -> String {
        self.dir.path().join(file).display().to_string()
    }

    fn read(&self, file: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(file)).unwrap()
    }
}

/// Whether certificates can be made; says so where they cannot, and fails where `CI` is `true`.
fn has_openssl(test: &str) -> bool {
    let found = Command::new("openssl").arg("version").output().is_ok();
    if !found {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "{test}: no openssl program");
        eprintln!("SKIPPED {test}: no openssl program");
    }
    found
}

/// With [`Postgres::all`]: those of `PGWAL_TEST_SERVERS`, too.
#[test]
fn every_major_lets_us_in() {
    if !has_openssl("every_major_lets_us_in") {
        return;
    }
    let ca = Authority::new().unwrap();
    ca.sign("server", "/CN=ignored", "subjectAltName=DNS:db.example").unwrap();
    for postgres in Postgres::all() {
        let major = postgres.major;
        let server = postgres.start_tcp(&[], "max_wal_senders = 4").unwrap();
        for (name, file) in [("server.crt", "server.crt"), ("server.key", "server.key")] {
            server.put(name, &ca.read(file)).unwrap();
        }
        server
            .put("pg_hba.conf", b"local all all trust\nhostssl all,replication scram all scram-sha-256\nhostssl all md5 all md5\n")
            .unwrap();
        for (role, method) in [("scram", "scram-sha-256"), ("md5", "md5")] {
            server.sql(&format!("SET password_encryption = '{method}'; CREATE ROLE {role} LOGIN REPLICATION PASSWORD 'secret'")).unwrap();
        }
        if let Err(e) = server.sql("ALTER SYSTEM SET ssl = on") {
            assert!(e.to_string().contains("SSL is not supported by this build") && major != 15, "{e}");
            continue;
        }
        server.control("restart").unwrap();
        let root = format!("sslmode=verify-full host=db.example sslrootcert={}", ca.path("ca.crt"));
        let tcp = format!("hostaddr=127.0.0.1 port={} dbname=postgres password=secret {root}", server.port());
        // Binding to the channel came with 11, talking TLS at once with 17.
        let binding = if major >= 11 { "require" } else { "prefer" };
        for options in
            ["user=scram channel_binding=disable".to_owned(), format!("user=scram channel_binding={binding}"), "user=md5".to_owned()]
        {
            for at_once in ["", "sslnegotiation=direct"] {
                let conninfo = format!("{tcp} {options} target_session_attrs=primary {at_once}");
                if !at_once.is_empty() && major < 17 {
                    refused(&conninfo);
                    continue;
                }
                let mut connection = connect(&conninfo).unwrap_or_else(|error| panic!("{major}, {options} {at_once}: {error}"));
                assert_eq!(connection.major(), Some(major.into()));
                let ssl = ask(&mut connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()");
                assert_eq!(ssl, "t", "{major}: {options} {at_once}");
            }
        }
        let mut wal = connect_in(&nowhere(), &format!("{tcp} user=scram"), Mode::Replication).unwrap();
        assert_eq!(ask(&mut wal, "SHOW wal_segment_size"), "16MB");
        for (attrs, expected) in [("standby", "server is not in hot standby mode"), ("read-only", "session is not read-only")] {
            let error = refused(&format!("{tcp} user=scram target_session_attrs={attrs}"));
            assert!(error.ends_with(expected), "{major}: {error}");
        }
        connect(&format!("{tcp} user=scram target_session_attrs=read-write")).unwrap();
        connect(&format!("{tcp} user=scram target_session_attrs=prefer-standby")).unwrap();
    }
}

#[test]
fn encrypted() {
    let Some(postgres) = Postgres::find_or_skip(Some(15), "encrypted") else { return };
    if !has_openssl("encrypted") {
        return;
    }
    let ca = Authority::new().unwrap();
    ca.sign("server", "/CN=ignored", "subjectAltName=DNS:db.example,IP:127.0.0.1").unwrap();
    ca.sign("named", "/CN=127.0.0.1", "").unwrap();
    ca.sign("client", "/CN=certified", "").unwrap();
    ca.openssl("rsa -aes128 -passout pass:x -in client.key -out locked.key").unwrap();
    let server = postgres.start_tcp(&[], "max_wal_senders = 4").unwrap();
    server.put("server.crt", &ca.read("server.crt")).unwrap();
    server.put("server.key", &ca.read("server.key")).unwrap();
    server.put("root.crt", &ca.read("ca.crt")).unwrap();
    server.put("pg_hba.conf", b"local all all trust\nhostssl all certified all cert\nhostssl all,replication scram all scram-sha-256\nhostnossl all plain all trust\nhostssl all plain all reject\n").unwrap();
    server.sql("CREATE ROLE scram LOGIN REPLICATION PASSWORD 'secret'; CREATE ROLE certified LOGIN; CREATE ROLE plain LOGIN").unwrap();
    server.sql("ALTER SYSTEM SET ssl = on").unwrap();
    server.sql("ALTER SYSTEM SET ssl_ca_file = 'root.crt'").unwrap();
    server.control("restart").unwrap();

    let tcp = format!("hostaddr=127.0.0.1 port={} dbname=postgres password=secret user=scram", server.port());
    let root = format!("sslrootcert={}", ca.path("ca.crt"));
    for options in [
        "".to_owned(),
        "sslmode=require".to_owned(),
        "sslmode=require channel_binding=require".to_owned(),
        "sslmode=require channel_binding=disable".to_owned(),
        "sslmode=require ssl_max_protocol_version=TLSv1.2 channel_binding=require".to_owned(),
        format!("sslmode=require {root} host=wrong.example"),
        format!("sslmode=verify-ca {root} host=wrong.example"),
        format!("sslmode=verify-full {root} host=db.example"),
        format!("sslmode=verify-full {root}"),
    ] {
        let mut connection = connect(&format!("{tcp} {options}")).unwrap_or_else(|error| panic!("{options}: {error}"));
        assert_eq!(ask(&mut connection, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"), "t", "{options}");
        assert_eq!(connection.tls_version().as_deref(), Some(if options.contains("1.2") { "TLSv1_2" } else { "TLSv1_3" }));
    }
    let mut wal = connect_in(&nowhere(), &format!("{tcp} sslmode=require"), Mode::Replication).unwrap();
    let CopyStart::Started(_) = wal.copy_out("BASE_BACKUP (CHECKPOINT 'fast')").unwrap() else { panic!() };
    let mut bytes = 0;
    while let CopyEvent::Data(data) = wal.next_copy(None).unwrap() {
        bytes += data.len();
    }
    assert!(bytes > 10_000_000);
    wal.finish_copy(None).unwrap();

    assert!(refused(&format!("{tcp} sslmode=verify-full {root} host=wrong.example")).contains("SSL error: invalid peer certificate"));
    assert!(refused(&format!("{tcp} sslmode=verify-full {root} host=ignored")).contains("SSL error: invalid peer certificate"));
    assert!(
        refused(&format!("{tcp} sslmode=verify-ca"))
            .contains("root certificate file \"/nonexistent/.postgresql/root.crt\": does not exist")
    );
    assert!(refused(&format!("{tcp} sslmode=verify-ca sslrootcert={}", ca.path("client.crt"))).contains("UnknownIssuer"));
    assert!(refused(&format!("{tcp} sslrootcert=system host=db.example")).contains("UnknownIssuer"));
    assert!(refused(&format!("{tcp} sslmode=disable")).contains("no encryption"));

    // A list of revoked certificates: first without, then with the server's.
    fs::write(ca.path("index"), "").unwrap();
    fs::write(ca.path("ca.conf"), "[ca]\ndefault_ca=it\n[it]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=30\ncrlnumber=number\n")
        .unwrap();
    fs::write(ca.path("number"), "01\n").unwrap();
    let authority = "ca -config ca.conf -keyfile ca.key -cert ca.crt";
    ca.openssl(&format!("{authority} -gencrl -out crl")).unwrap();
    let revoked = format!("{tcp} sslmode=verify-ca {root} sslcrl={}", ca.path("crl"));
    connect(&revoked).unwrap();
    ca.openssl(&format!("{authority} -revoke server.crt")).unwrap();
    ca.openssl(&format!("{authority} -gencrl -out crl")).unwrap();
    assert!(refused(&revoked).contains("Revoked"));

    // prefer goes on without TLS where the server wants that, allow the other way round; require does not.
    let plain = tcp.replace("user=scram", "user=plain");
    connect(&plain).unwrap();
    connect(&format!("{tcp} sslmode=allow")).unwrap();
    assert!(refused(&format!("{plain} sslmode=require")).contains("pg_hba.conf rejects connection"));

    // Client certificates.
    let certified = tcp.replace("user=scram", "user=certified");
    let cert = format!("sslcert={} sslkey={}", ca.path("client.crt"), ca.path("client.key"));
    connect(&format!("{certified} {cert} sslmode=require")).unwrap();
    assert!(refused(&format!("{certified} sslmode=require")).contains("connection requires a valid client certificate"));
    let locked = format!("sslcert={} sslkey={}", ca.path("client.crt"), ca.path("locked.key"));
    assert!(refused(&format!("{certified} {locked} sslmode=require")).ends_with("is encrypted, which is not supported"));
    fs::set_permissions(ca.path("client.key"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(refused(&format!("{certified} {cert} sslmode=require")).contains("has group or world access"));

    // Without alternative names the common name counts; a certificate that signs itself is trusted when it is the root.
    server.put("server.crt", &ca.read("named.crt")).unwrap();
    server.put("server.key", &ca.read("named.key")).unwrap();
    server.reload().unwrap();
    connect(&format!("{tcp} sslmode=verify-full {root}")).unwrap();
    ca.openssl("req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=127.0.0.1 -keyout self.key -out self.crt").unwrap();
    server.put("server.crt", &ca.read("self.crt")).unwrap();
    server.put("server.key", &ca.read("self.key")).unwrap();
    server.reload().unwrap();
    connect(&format!("{tcp} sslmode=verify-full sslrootcert={}", ca.path("self.crt"))).unwrap();
    assert!(refused(&format!("{tcp} sslmode=verify-ca {root}")).contains("SSL error"));
}

/// Certificates of version 1, judged by libpq and by us.
#[test]
fn certificates_of_version_1_are_taken_as_libpq_takes_them() {
    let test = "certificates of version 1";
    let Some(postgres) = Postgres::find_or_skip(Some(15), test) else { return };
    if !has_openssl(test) {
        return;
    }
    let server = postgres.start_tcp(&[], "").unwrap();
    let ca = Authority::new().unwrap();
    // What is signed without extensions is of version 1, up to OpenSSL 3.1.
    let request = |name: &str, subject: &str| {
        ca.openssl(&format!("req -new -newkey rsa:2048 -nodes -subj {subject} -keyout {name}.key -out {name}.csr")).unwrap();
    };
    let sign = |name: &str, by: &str, more: &str| {
        ca.openssl(format!("x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -out {name}.crt {more}").trim_end())
            .unwrap();
    };
    for root in ["root1", "other1"] {
        request(root, "/CN=root1");
        ca.openssl(&format!("x509 -req -days 30 -in {root}.csr -signkey {root}.key -out {root}.crt")).unwrap();
    }
    let text = Command::new("openssl").args(["x509", "-noout", "-text", "-in", &ca.path("root1.crt")]).output().unwrap();
    if !String::from_utf8_lossy(&text.stdout).contains("Version: 1 (0x0)") {
        return eprintln!("SKIPPED {test}: this openssl makes others");
    }
    fs::write(ca.path("ca.ext"), "basicConstraints=critical,CA:TRUE\n").unwrap();
    fs::write(ca.path("leaf.ext"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    for (name, by, days, ext) in [
        ("leaf1", "root1", "30", ""),
        ("leaf3", "root1", "30", "leaf.ext"),
        ("leaf1_of_3", "ca", "30", ""),
        ("expired", "root1", "-1", ""),
        ("middle1", "root1", "30", ""),
        ("middle3", "root1", "30", "ca.ext"),
    ] {
        request(name, if name.starts_with("middle") { "/CN=middle" } else { "/CN=127.0.0.1" });
        let ext = if ext.is_empty() { String::new() } else { format!(" -extfile {ext}") };
        sign(name, by, &format!("-days {days}{ext}"));
    }
    for (name, by) in [("leaf_of_middle1", "middle1"), ("leaf_of_middle3", "middle3")] {
        request(name, "/CN=127.0.0.1");
        sign(name, by, "-days 30");
    }
    request("named", "/CN=db.example.org");
    sign("named", "root1", "-days 30");
    request("self1", "/CN=127.0.0.1");
    ca.openssl("x509 -req -days 30 -in self1.csr -signkey self1.key -out self1.crt").unwrap();
    // Signed by one, and changed after that: the last byte is one of the signature.
    let mut forged = Command::new("openssl").args(["x509", "-outform", "DER", "-in", &ca.path("leaf1.crt")]).output().unwrap().stdout;
    *forged.last_mut().unwrap() ^= 1;
    fs::write(ca.path("forged.der"), forged).unwrap();
    ca.openssl("x509 -inform DER -in forged.der -out forged.crt").unwrap();
    fs::copy(ca.path("leaf1.key"), ca.path("forged.key")).unwrap();
    // A list that has the serial number of one of them.
    fs::write(ca.path("index"), "").unwrap();
    fs::write(ca.path("number"), "01\n").unwrap();
    let authority = "[ca]\ndefault_ca=it\n[it]\ndatabase=index\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=30\n";
    fs::write(ca.path("ca.cnf"), authority).unwrap();
    let by_root = "ca -config ca.cnf -cert root1.crt -keyfile root1.key";
    ca.openssl(&format!("{by_root} -gencrl -out none.crl")).unwrap();
    ca.openssl(&format!("{by_root} -revoke leaf1.crt")).unwrap();
    ca.openssl(&format!("{by_root} -gencrl -out leaf1.crl")).unwrap();

    let mut accepted = 0;
    let cases: [(&str, &str, &str, &str); 24] = [
        ("leaf1", "", "", "require"),
        ("leaf1", "", "root1", "verify-ca"),
        ("leaf1", "", "root1", "verify-full"),
        ("leaf1", "root1", "root1", "verify-full"),
        ("leaf1", "", "other1", "verify-ca"),
        ("leaf1", "", "ca", "verify-ca"),
        ("leaf1", "", "root1", "require"),
        ("leaf1", "", "other1", "require"),
        ("leaf3", "", "root1", "verify-full"),
        ("leaf1_of_3", "", "ca", "verify-full"),
        ("leaf1_of_3", "", "root1", "verify-ca"),
        ("expired", "", "root1", "verify-ca"),
        ("leaf_of_middle3", "middle3", "root1", "verify-full"),
        ("leaf_of_middle3", "", "root1", "verify-full"),
        ("leaf_of_middle1", "middle1", "root1", "verify-ca"),
        ("named", "", "root1", "verify-ca"),
        ("named", "", "root1", "verify-full"),
        ("self1", "", "self1", "verify-full"),
        ("self1", "", "root1", "verify-ca"),
        ("self1", "", "", "require"),
        ("forged", "", "root1", "verify-ca"),
        ("leaf1", "", "root1", "verify-ca sslcrl=leaf1.crl"),
        ("leaf1", "", "root1", "verify-ca sslcrl=none.crl"),
        ("leaf1_of_3", "", "ca", "verify-ca sslcrl=none.crl"),
    ];
    for (cert, more, root, mode) in cases {
        let chain = [ca.read(&format!("{cert}.crt")), if more.is_empty() { Vec::new() } else { ca.read(&format!("{more}.crt")) }].concat();
        server.put("server.crt", &chain).unwrap();
        server.put("server.key", &ca.read(&format!("{cert}.key"))).unwrap();
        server.sql("ALTER SYSTEM SET ssl = on").unwrap();
        server.reload().unwrap();
        let root = if root.is_empty() { "/nonexistent".to_owned() } else { ca.path(&format!("{root}.crt")) };
        let mode = mode.replace("sslcrl=", &format!("sslcrl={}/", ca.dir.path().display()));
        let conninfo = format!("{} user=postgres dbname=postgres sslrootcert={root} sslmode={mode}", on_tcp(&server));
        let libpq = Command::new(postgres.program("psql")).args(["-XAtq", "-d", &conninfo, "-c", "SELECT 1"]).output().unwrap();
        let ours = connect(&conninfo);
        let said = ours.as_ref().err().map(ToString::to_string);
        assert_eq!(ours.is_ok(), libpq.status.success(), "{cert}, {mode}: {said:?}; libpq: {}", String::from_utf8_lossy(&libpq.stderr));
        accepted += u32::from(ours.is_ok());
    }
    assert!((9..=15).contains(&accepted), "{accepted}");

    // A client's own.
    request("client", "/CN=postgres");
    sign("client", "root1", "-days 30");
    fs::set_permissions(ca.path("client.key"), fs::Permissions::from_mode(0o600)).unwrap();
    server.put("root.crt", &ca.read("root1.crt")).unwrap();
    server.put("pg_hba.conf", b"local all all trust\nhostssl all all all cert\n").unwrap();
    server.sql("ALTER SYSTEM SET ssl_ca_file = 'root.crt'").unwrap();
    server.reload().unwrap();
    let tcp = format!("{} user=postgres dbname=postgres sslmode=require", on_tcp(&server));
    connect(&format!("{tcp} sslcert={} sslkey={}", ca.path("client.crt"), ca.path("client.key"))).unwrap();
    let other = refused(&format!("{tcp} sslcert={} sslkey={}", ca.path("leaf1.crt"), ca.path("client.key")));
    assert!(other.contains("cannot be used with its private key"), "{other}");
}
