use super::*;

/// What libpq 15 makes of connection strings; empty values count as none.
#[test]
fn strings_as_libpq_reads_them() {
    let table = [
        ("host=a port=1", "host=a | port=1"),
        ("host = a  port = 1", "host=a | port=1"),
        ("host = 'a b'port=1", "host=a b | port=1"),
        ("host='a\\'b\\\\c' user=x\\ y", "host=a'b\\c | user=x y"),
        ("host=", ""),
        ("host= port=1", "host=port=1"),
        ("host=a\\", "host=a"),
        ("sslmode=bogus", "sslmode=bogus"),
        ("requiressl=1", "sslmode=require"),
        ("requiressl=0", "sslmode=prefer"),
        ("service=x", "service=x"),
        ("host=a host=b", "host=b"),
        ("postgresql://", ""),
        ("postgres://u@h", "host=h | user=u"),
        ("postgresql://u:p@h:1/d", "dbname=d | host=h | password=p | port=1 | user=u"),
        ("postgresql://u:@h", "host=h | user=u"),
        ("postgresql://:p@h", "host=h | password=p"),
        ("postgresql://@h", "host=h"),
        ("postgresql://h1:1,h2,h3:3/d?application_name=x", "application_name=x | dbname=d | host=h1,h2,h3 | port=1,,3"),
        ("postgresql://h1,h2:5/d", "dbname=d | host=h1,h2 | port=,5"),
        ("postgresql://[::1]:5432/d", "dbname=d | host=::1 | port=5432"),
        ("postgresql://[::1],[::2]:3/d", "dbname=d | host=::1,::2 | port=,3"),
        ("postgresql://%2Ftmp%2Fpg/d", "dbname=d | host=/tmp/pg"),
        ("postgresql:///d?host=/tmp&port=5", "dbname=d | host=/tmp | port=5"),
        ("postgresql://?host=a", "host=a"),
        ("postgresql://h?host=b", "host=b"),
        ("postgresql://h/d?", "dbname=d | host=h"),
        ("postgresql://h/d?host=b&", "dbname=d | host=b"),
        ("postgresql://h/d/e", "dbname=d/e | host=h"),
        ("postgresql://h/d?ssl=true", "dbname=d | host=h | sslmode=require"),
        ("postgresql://h/d?sslmode=require&%75ser=joe", "dbname=d | host=h | sslmode=require | user=joe"),
        ("postgresql://u%40x:p%3Aq@h/d", "dbname=d | host=h | password=p:q | user=u@x"),
        ("postgresql://h:/d", "dbname=d | host=h"),
        ("postgresql://h:abc/d", "dbname=d | host=h | port=abc"),
        ("postgresql://u@a@b/d", "dbname=d | host=a@b | user=u"),
        ("postgresql://u:p:q@b/d", "dbname=d | host=b | password=p:q | user=u"),
        ("postgresql://h/ d", "dbname= d | host=h"),
        ("postgresql://h /d", "dbname=d | host=h "),
        ("postgresql://h?user=a@b", "host=b | user=h?user=a"),
        ("postgresql://h/d?user=a@b", "dbname=d | host=h | user=a@b"),
        ("postgresql://h/d?application_name=a+b", "application_name=a+b | dbname=d | host=h"),
        ("host=a,b port=1,2", "host=a,b | port=1,2"),
        ("postgresql://a:b", "host=a | port=b"),
        ("postgresql://a:@", "user=a"),
        ("postgresql://a,", "host=a, | port=,"),
        ("postgresql://,b", "host=,b | port=,"),
    ];
    for (text, expected) in table {
        let settings = Settings::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        let found: Vec<String> = settings.iter().map(|(keyword, value)| format!("{keyword}={value}")).collect();
        assert_eq!(found.join(" | "), expected, "{text}");
    }
}

/// libpq 15's words.
#[test]
fn strings_that_libpq_refuses() {
    let table = [
        ("mydb", "missing \"=\" after \"mydb\" in connection info string"),
        ("host='abc", "unterminated quoted string in connection info string"),
        ("= x", "invalid connection option \"\""),
        ("hos=a", "invalid connection option \"hos\""),
        ("host a=b", "missing \"=\" after \"host\" in connection info string"),
        ("postgresql://[::1", "end of string reached when looking for matching \"]\" in IPv6 host address in URI: \"postgresql://[::1\""),
        ("postgresql://[]", "IPv6 host address may not be empty in URI: \"postgresql://[]\""),
        ("postgresql://[::1]x", "unexpected character \"x\" at position 19 in URI (expected \":\" or \"/\"): \"postgresql://[::1]x\""),
        ("postgresql://h/d?a", "missing key/value separator \"=\" in URI query parameter: \"a\""),
        ("postgresql://h/d?a=b", "invalid URI query parameter: \"a\""),
        ("postgresql://h/d?host=b=c", "extra key/value separator \"=\" in URI query parameter: \"host\""),
        ("postgresql://h/d?host", "missing key/value separator \"=\" in URI query parameter: \"host\""),
        ("postgresql://h/d?&host=b", "missing key/value separator \"=\" in URI query parameter: \"\""),
        ("postgresql://h/%zz", "invalid percent-encoded token: \"%zz\""),
        ("postgresql://h/%00", "forbidden value %00 in percent-encoded value: \"%00\""),
        ("postgresql://h/%4", "invalid percent-encoded token: \"%4\""),
        ("postgresql://h/d?ssl=false", "invalid URI query parameter: \"ssl\""),
        ("postgresqlx://h", "missing \"=\" after \"postgresqlx://h\" in connection info string"),
        ("POSTGRESQL://h", "missing \"=\" after \"POSTGRESQL://h\" in connection info string"),
        ("postgresql:/h", "missing \"=\" after \"postgresql:/h\" in connection info string"),
    ];
    for (text, expected) in table {
        match Settings::parse(text) {
            Err(error) => assert_eq!(error.to_string(), expected, "{text}"),
            Ok(settings) => panic!("{text}: {settings:?}"),
        }
    }
}

fn env() -> Environment {
    Environment::new("me", Path::new("/nonexistent"))
}

fn config(text: &str) -> Config {
    Config::parse(text, &env()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn refused(text: &str) -> String {
    match Config::parse(text, &env()) {
        Err(error) => error.to_string(),
        Ok(config) => panic!("{text}: {config:?}"),
    }
}

#[test]
fn what_is_built_in() {
    let found = config("");
    assert_eq!(found.hosts, [Host { place: Place::Socket(PathBuf::from("/var/run/postgresql")), port: 5432 }]);
    assert_eq!((found.user.as_str(), found.dbname.as_str()), ("me", "me"));
    assert_eq!((found.tls.mode, found.channel_binding), (SslMode::Prefer, ChannelBindingMode::Prefer));
    assert_eq!(found.passfile, Some(PathBuf::from("/nonexistent/.pgpass")));
    assert_eq!(config("user=you").dbname, "you");
    assert_eq!(config("sslrootcert=system").tls.mode, SslMode::VerifyFull);
    assert_eq!(config("connect_timeout=1").connect_timeout, Some(Duration::from_secs(2)));
    assert_eq!(config("connect_timeout=-1").connect_timeout, None);
}

#[test]
fn hosts_and_ports() {
    let socket = |path: &str| Place::Socket(PathBuf::from(path));
    let name = |name: &str| Place::Name(name.to_owned());
    let address = |text: &str, name: Option<&str>| Place::Address { address: text.parse().unwrap(), name: name.map(str::to_owned) };
    let table = [
        ("host=a,b,/tmp port=1,,3", vec![(name("a"), 1), (name("b"), 5432), (socket("/tmp"), 3)]),
        ("host=a,,@abstract port=7", vec![(name("a"), 7), (socket("/var/run/postgresql"), 7), (socket("@abstract"), 7)]),
        ("host=a,b hostaddr=127.0.0.1,", vec![(address("127.0.0.1", Some("a")), 5432), (name("b"), 5432)]),
        ("hostaddr=::1", vec![(address("::1", None), 5432)]),
        ("postgresql://[::1]:1,%2Ftmp/", vec![(name("::1"), 1), (socket("/tmp"), 5432)]),
    ];
    for (text, expected) in table {
        let found: Vec<(Place, u16)> = config(text).hosts.into_iter().map(|host| (host.place, host.port)).collect();
        assert_eq!(found, expected, "{text}");
    }
}

#[test]
fn values_that_are_refused() {
    let table = [
        ("port=x", "invalid integer value \"x\" for connection option \"port\""),
        ("port=0", "invalid port number: \"0\""),
        ("port=65536", "invalid port number: \"65536\""),
        ("host=a,b,c port=1,2", "could not match 2 port numbers to 3 hosts"),
        ("host=a,b hostaddr=::1", "could not match 2 host names to 1 hostaddr values"),
        ("hostaddr=name", "could not parse network address \"name\": Name or service not known"),
        ("sslmode=bogus", "invalid sslmode value: \"bogus\""),
        ("channel_binding=yes", "invalid channel_binding value: \"yes\""),
        ("target_session_attrs=master", "invalid target_session_attrs value: \"master\""),
        ("gssencmode=maybe", "invalid gssencmode value: \"maybe\""),
        ("gssencmode=require", "connection option \"gssencmode\": encryption by GSSAPI is not supported"),
        ("connect_timeout=soon", "invalid integer value \"soon\" for connection option \"connect_timeout\""),
        ("require_auth=md5,!none", "invalid require_auth value: \"md5,!none\""),
        ("sslrootcert=system sslmode=require", "weak sslmode \"require\" may not be used with sslrootcert=system (use \"verify-full\")"),
        (
            "sslnegotiation=direct",
            "weak sslmode \"prefer\" may not be used with sslnegotiation=direct (use \"require\", \"verify-ca\", or \"verify-full\")",
        ),
        ("ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2", "invalid SSL protocol version range"),
        ("service=none", "definition of service \"none\" not found"),
    ];
    for (text, expected) in table {
        assert_eq!(refused(text), expected, "{text}");
    }
    assert_eq!(config("require_auth=!password,!none").require_auth.map(|all| all.len()), Some(4));
    config("gssencmode=prefer krbsrvname=postgres gsslib=gssapi sslcompression=0 replication=true");
}

#[test]
fn passwords_are_not_shown() {
    let environment = env().with("PGPASSWORD", "hunter2");
    let settings = Settings::parse("password=hunter2 sslpassword=hunter2").unwrap();
    let shown =
        format!("{environment:?} {settings:?} {:?} {:?}", config("password=hunter2"), Config::new(Settings::default(), &environment));
    assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    for text in [
        "postgresql://u:hunter2@[::1",
        "postgresql://u:hunter2@[]",
        "postgresql://u:hunter2@[::1]x",
        "postgresql://u:hunter2%@h",
        "postgresql://u:hunter2%00@h",
        "postgresql://[::1]x?password=hunter2",
        "postgresql://h?password=hunter2%",
        "password=my hunter2",
    ] {
        let error = Settings::parse(text).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{text}: {error}");
    }
}

#[test]
fn the_first_that_has_a_value() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("services");
    std::fs::write(
        &file,
        "# ours\n[other]\nhost=no\n\n [one] \nhost=service\nport=6\nuser=service\n[two]\nbogus\n[three]\nservice=one\n[four]\nx=y\n",
    )
    .unwrap();
    let path = file.display().to_string();
    let env = env().with("PGSERVICEFILE", &path).with("PGHOST", "env").with("PGDATABASE", "env").with("PGUSER", "env").with("PGPORT", "");
    let found = Config::parse("service=one user=string", &env).unwrap();
    assert_eq!(found.hosts, [Host { place: Place::Name("service".to_owned()), port: 6 }]);
    assert_eq!((found.user.as_str(), found.dbname.as_str()), ("string", "env"));
    let refused = |service: &str| Config::parse("", &env.clone().with("PGSERVICE", service)).unwrap_err().to_string();
    assert_eq!(refused("two"), format!("syntax error in service file \"{path}\", line 10"));
    assert_eq!(refused("three"), format!("nested service specifications not supported in service file \"{path}\", line 12"));
    assert_eq!(refused("four"), format!("syntax error in service file \"{path}\", line 14"));
    assert_eq!(refused("five"), "definition of service \"five\" not found");
    let gone = env.clone().with("PGSERVICEFILE", "/nonexistent/services").with("PGSERVICE", "one");
    assert_eq!(Config::parse("", &gone).unwrap_err().to_string(), "service file \"/nonexistent/services\" not found");
    let shared = env.with("PGSERVICE", "five").with("PGSYSCONFDIR", &dir.path().display().to_string());
    std::fs::write(dir.path().join("pg_service.conf"), "[five]\nport=9").unwrap();
    assert_eq!(Config::parse("", &shared).unwrap().hosts[0].port, 9);
}

#[test]
fn password_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgpass");
    let lines = "#h:*:*:*:comment\nh:5432:db:u:one\nh:*:*:u:t\\:w\\\\o:more\n::1:*:*:*:six\n\\:\\:2:*:*:*:escaped\nlocalhost:1:*:*:local\r\n*:*:replication:*:wal\nshort:*\n";
    std::fs::write(&path, lines).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let find = |host: Option<&str>, port, dbname, user| password(&path, host, port, dbname, user).password;
    let table = [
        ((Some("h"), 5432, "db", "u"), Some("one")),
        ((Some("h"), 1, "db", "u"), Some("t:w\\o")),
        ((Some("h"), 1, "db", "v"), None),
        ((Some("::1"), 1, "db", "v"), Some("six")),
        ((Some("::2"), 1, "db", "v"), Some("escaped")),
        ((None, 1, "db", "v"), Some("local")),
        ((Some("/var/run/postgresql"), 1, "db", "v"), Some("local")),
        ((Some("x"), 1, "replication", "v"), Some("wal")),
        ((Some("short"), 1, "db", "v"), None),
    ];
    for ((host, port, dbname, user), expected) in table {
        assert_eq!(find(host, port, dbname, user).as_deref(), expected, "{host:?} {port} {dbname} {user}");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o604)).unwrap();
    let found = password(&path, Some("h"), 5432, "db", "u");
    assert!(found.password.is_none() && found.warning.is_some_and(|warning| warning.contains("group or world access")));
    assert!(password(dir.path(), None, 1, "", "").warning.is_some_and(|warning| warning.ends_with("is not a plain file")));
}
