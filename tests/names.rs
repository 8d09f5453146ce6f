//! `pgwal names`: what it reads from files is what the server says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use pgwal::datadir::DataDir;
use pgwal::names::{Names, RelKind, Relation};
use pgwal::types::{Oid, RelFileLocator};
use pgwal_testkit::server::{Postgres, Server};
use postgres::{Client, Config, NoTls};

const SETTINGS: &str = "autovacuum = off\nmax_prepared_transactions = 5\nmax_connections = 20";

/// What is done in the database `postgres`; `DIR` is a folder for tablespaces.
const CLUSTER: &[&str] = &[
    "COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; mkdir DIR/fast DIR/slow'",
    "CREATE TABLESPACE fast LOCATION 'DIR/fast'",
    "CREATE TABLESPACE \"Slow Disk\" LOCATION 'DIR/slow'",
    "CREATE DATABASE shop",
    "CREATE DATABASE \"Sales \"\"EU\"\"\" TABLESPACE fast",
    "CREATE DATABASE gone",
    "DROP DATABASE gone",
    "CREATE DATABASE old_name",
    "ALTER DATABASE old_name RENAME TO new_name",
    "ALTER DATABASE new_name SET TABLESPACE \"Slow Disk\"",
    "VACUUM FULL pg_database",
    "REINDEX TABLE pg_tablespace",
];

/// What is done in other databases: each line in a transaction of its own unless it says otherwise.
const DATABASE: &[&str] = &[
    "CREATE SCHEMA app; CREATE SCHEMA \"Odd.Schema\"; CREATE SCHEMA gone; CREATE SCHEMA renamed",
    "CREATE TABLE app.accounts(id serial PRIMARY KEY, doc text, other bytea)",
    "CREATE TABLE \"Odd.Schema\".\"Größe\"(i int)",
    "CREATE TABLE gone.t(i int PRIMARY KEY)",
    "DROP SCHEMA gone CASCADE",
    "ALTER SCHEMA renamed RENAME TO other",
    "CREATE TABLE renamed(i int); ALTER TABLE renamed RENAME TO renamed_2",
    "CREATE TABLE moved(i int PRIMARY KEY); ALTER TABLE moved SET SCHEMA app",
    "CREATE TABLE on_fast(i int, doc text) TABLESPACE fast",
    "CREATE INDEX on_slow ON on_fast(i) TABLESPACE \"Slow Disk\"",
    "CREATE TABLE to_slow(doc text)",
    "ALTER TABLE to_slow SET TABLESPACE \"Slow Disk\"",
    "CREATE UNLOGGED TABLE unlogged(i int PRIMARY KEY)",
    "CREATE MATERIALIZED VIEW matview AS SELECT 1 AS one",
    "CREATE VIEW view AS SELECT 1 AS one",
    "CREATE TABLE parted(i int) PARTITION BY RANGE (i)",
    "CREATE TABLE part_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)",
    "CREATE TABLE emptied(i int)",
    "TRUNCATE emptied",
    "CREATE TABLE dropped(i int PRIMARY KEY, doc text)",
    "DROP TABLE dropped",
    "BEGIN; CREATE TABLE aborted(i int); ROLLBACK",
    "CREATE TABLE kept(i int PRIMARY KEY, doc text)",
    "BEGIN; DROP TABLE kept; ROLLBACK",
    "BEGIN; ALTER TABLE kept RENAME TO not_kept; ROLLBACK",
    "BEGIN; TRUNCATE kept; ROLLBACK",
    "BEGIN; SAVEPOINT a; CREATE TABLE sub_aborted(i int); ROLLBACK TO a; SAVEPOINT b; CREATE TABLE sub_kept(i int); RELEASE b; COMMIT",
    "CREATE TABLE multi_renamed(i int); CREATE TABLE multi_kept(i int); CREATE TABLE multi_dropped(i int); CREATE TABLE locked(i int)",
    // A row that its own transaction has locked, then changed in a subtransaction, has a multixact.
    "BEGIN; SELECT FROM pg_class WHERE relname = 'multi_renamed' FOR KEY SHARE; SAVEPOINT a; ALTER TABLE multi_renamed RENAME TO multi_2; COMMIT",
    "BEGIN; SELECT FROM pg_class WHERE relname = 'multi_kept' FOR KEY SHARE; SAVEPOINT a; ALTER TABLE multi_kept RENAME TO multi_3; ROLLBACK TO a; COMMIT",
    "BEGIN; SELECT FROM pg_class WHERE relname = 'multi_dropped' FOR KEY SHARE; SAVEPOINT a; DROP TABLE multi_dropped; COMMIT",
    "BEGIN; SELECT FROM pg_class WHERE relname = 'locked' FOR KEY SHARE; SAVEPOINT a; SELECT FROM pg_class WHERE relname = 'locked' FOR UPDATE; COMMIT",
    "DO $$BEGIN FOR i IN 1..300 LOOP EXECUTE format('CREATE TABLE app.t%s(i int)', i); END LOOP; END$$",
    "DO $$BEGIN FOR i IN 1..300 LOOP IF i % 3 = 0 THEN EXECUTE format('DROP TABLE app.t%s', i); END IF; END LOOP; END$$",
    "VACUUM FULL app.accounts",
    "VACUUM FULL pg_class",
    "VACUUM FULL pg_namespace",
    "CREATE TABLE after_rewrite(i int PRIMARY KEY)",
    "VACUUM pg_class",
    "CREATE TABLE after_vacuum(i int PRIMARY KEY)",
    "REINDEX TABLE pg_class",
];

/// Transactions that are not over, with the locks they hold; the last of all.
const OPEN: &[&str] = &[
    "BEGIN; CREATE TABLE prepared(i int); PREPARE TRANSACTION 'DATABASE'",
    "CREATE TEMP TABLE temporary(i int)",
    "BEGIN; CREATE TABLE unfinished(i int); DROP TABLE kept",
];

fn connect(server: &Server, database: &str) -> Client {
    let mut config = Config::new();
    config.host(server.socket().to_str().unwrap()).user("postgres").dbname(database);
    let mut client = config.connect(NoTls).unwrap_or_else(|e| panic!("{database}: {e}: {:?}", std::error::Error::source(&e)));
    // A test that waits for a lock waits for itself.
    client.batch_execute("SET lock_timeout = '20s'").unwrap();
    client
}

#[track_caller]
fn each(client: &mut Client, statements: &[&str], dir: &Path) {
    for line in statements {
        let sql = line.replace("DIR", &dir.display().to_string());
        client.batch_execute(&sql).unwrap_or_else(|e| panic!("{sql}: {:?}", std::error::Error::source(&e)));
    }
}

fn pgwal(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    for variable in ["PGHOST", "PGPORT", "PGUSER", "PGPASSWORD", "PGDATABASE"] {
        command.env_remove(variable);
    }
    command.arg("names").args(args).output().unwrap()
}

/// The names that a run writes, which ends as it should and says `note` and no more.
#[track_caller]
fn written(args: &[&str], note: &str) -> Names {
    let output = pgwal(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.lines().all(|line| !note.is_empty() && line.contains(note)), "{args:?}: {stderr}");
    assert_eq!(output.status.code(), Some(0), "{args:?}: {stderr}");
    Names::read(&output.stdout[..]).unwrap()
}

/// Fails with the first entries that differ.
#[track_caller]
fn same<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(what: &str, found: &BTreeMap<K, V>, expected: &BTreeMap<K, V>) {
    let missing: Vec<_> = expected.iter().filter(|(key, value)| found.get(key) != Some(value)).take(5).collect();
    let extra: Vec<_> = found.iter().filter(|(key, value)| expected.get(key) != Some(value)).take(5).collect();
    assert!(missing.is_empty() && extra.is_empty(), "{what}: expected {missing:#?}\nfound {extra:#?}");
}

/// What pg_class says in each database that takes connections, in the test's own words.
fn catalogs(server: &Server) -> BTreeMap<RelFileLocator, Relation> {
    let mut relations = BTreeMap::new();
    let databases = connect(server, "postgres").query("SELECT oid, datname::text, dattablespace FROM pg_database WHERE datallowconn", &[]);
    for row in databases.unwrap() {
        let (db, database, dattablespace): (u32, String, u32) = (row.get(0), row.get(1), row.get(2));
        let sql = "SELECT oid, relnamespace::regnamespace::text, relname::text, relkind::text, reltablespace, relisshared, pg_relation_filenode(oid),
                          pg_relation_filepath(oid), (SELECT nspname::text FROM pg_namespace n WHERE n.oid = relnamespace)
                     FROM pg_class WHERE relkind IN ('r', 'i', 'S', 't', 'm') AND relpersistence <> 't'";
        for row in connect(server, &database).query(sql, &[]).unwrap() {
            let (oid, relkind, shared): (u32, String, bool) = (row.get(0), row.get(3), row.get(5));
            let (spc, rel): (u32, u32) = (row.get(4), row.get(6));
            let spc = if spc == 0 { dattablespace } else { spc };
            let rel = RelFileLocator { spc: Oid(spc), db: Oid(if shared { 0 } else { db }), rel: Oid(rel) };
            let path: String = row.get(7);
            assert!(path.ends_with(&format!("/{}", rel.rel.0)), "{path} {rel}");
            assert!(server.data().join(&path).is_file(), "{path}");
            let kind = RelKind::from_relkind(relkind.as_bytes()[0]);
            assert!(kind.is_some());
            relations.insert(rel, Relation { schema: row.get(8), name: row.get(2), kind, oid: Some(Oid(oid)) });
        }
    }
    relations
}

fn oids(server: &Server, sql: &str) -> BTreeMap<u32, String> {
    connect(server, "postgres").query(sql, &[]).unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// Everything but the relations of `template0`, which takes no connections.
fn relations(names: &Names) -> BTreeMap<RelFileLocator, Relation> {
    let template0 = names.database_named("template0").expect("template0");
    names.relations().filter(|(rel, _)| rel.db != template0).map(|(rel, relation)| (rel, relation.clone())).collect()
}

#[test]
fn data_directory_of_the_fixtures() {
    let dir = pgwal_testkit::fixtures::root().join("names");
    let names = written(&["-D", dir.join("data").to_str().unwrap()], "");
    let kind = |kind| match kind {
        Some(RelKind::Table) => "r",
        Some(RelKind::Index) => "i",
        Some(RelKind::Sequence) => "S",
        Some(RelKind::Toast) => "t",
        Some(RelKind::MaterializedView) => "m",
        None => "?",
    };
    let line = |(rel, relation): (_, Relation)| (format!("{rel} {relation} {}", kind(relation.kind)), ());
    let expected = fs::read_to_string(dir.join("names.txt")).unwrap();
    let expected: BTreeMap<String, ()> = expected.lines().map(|line| (line.to_owned(), ())).collect();
    same("fixtures/names", &relations(&names).into_iter().map(line).collect(), &expected);
    assert!(expected.len() > 400);
    let databases: Vec<&str> = names.databases().map(|(_, name)| name).collect();
    assert_eq!((databases, names.major), (vec!["template1", "template0", "postgres"], Some(17)));
}

#[test]
fn equal_to_pg_class_of_every_major() {
    let test = "names::equal_to_pg_class_of_every_major";
    let servers = Postgres::all();
    if servers.is_empty() {
        Postgres::find_or_skip(None, test);
        return;
    }
    let majors: Vec<u8> = servers.iter().map(|postgres| postgres.major).collect();
    eprintln!("{test}: servers of {majors:?}; PGWAL_TEST_SERVERS adds more");
    for postgres in servers {
        equal_to_pg_class(&postgres);
    }
}

fn equal_to_pg_class(postgres: &Postgres) {
    let major = postgres.major;
    let server = postgres.start(&["--data-checksums"], SETTINGS).unwrap_or_else(|e| panic!("{major}: {e}"));
    let data = server.data().to_str().unwrap().to_owned();
    each(&mut connect(&server, "postgres"), CLUSTER, server.socket());
    let mut sessions = Vec::new();
    for database in ["shop", "Sales \"EU\"", "new_name"] {
        let mut client = connect(&server, database);
        each(&mut client, DATABASE, server.socket());
        each(&mut client, &[&OPEN[0].replace("DATABASE", database)], server.socket());
        each(&mut client, &OPEN[1..], server.socket());
        sessions.push(client);
    }
    each(&mut connect(&server, "postgres"), &["CHECKPOINT"], server.socket());

    // First the files: the server's own reading of the catalogs leaves hints in them.
    let offline = written(&["--data-dir", &data], "the server is running");
    let conninfo = format!("host={} user=postgres dbname=postgres", server.socket().display());
    let live = written(&["-d", &conninfo], "");
    // Other commands ask the server just so.
    let ask = |args: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_pgwal")).args(args).args(["-d", &conninfo, &data]).output().unwrap();
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (stats, stderr) = ask(&["stats", "--by", "relation", "--top", "100000"]);
    assert!(stats.contains(" shop.pg_catalog.pg_class ") && !stderr.contains("the names are those"), "{stats}{stderr}");
    let (dumped, stderr) = ask(&["dump", "-R", "shop.pg_catalog.pg_class", "-n", "1"]);
    assert_eq!(dumped.lines().count(), 1, "{stderr}");
    let expected = catalogs(&server);
    let found = relations(&offline);
    same(&format!("{major}, offline"), &found, &expected);
    same(&format!("{major}, live"), &relations(&live), &expected);
    assert!(expected.len() > 1500, "{major}: {}", expected.len());

    let databases = oids(&server, "SELECT oid, datname::text FROM pg_database");
    let tablespaces = oids(&server, "SELECT oid, spcname::text FROM pg_tablespace");
    let identifier = oids(&server, "SELECT 0::oid, system_identifier::text FROM pg_control_system()").remove(&0);
    for names in [&offline, &live] {
        same("databases", &names.databases().map(|(oid, name)| (oid.0, name.to_owned())).collect(), &databases);
        same("tablespaces", &names.tablespaces().map(|(oid, name)| (oid.0, name.to_owned())).collect(), &tablespaces);
        assert_eq!((names.major, names.system_identifier.map(|id| id.to_string())), (Some(major), identifier.clone()));
    }
    // Names are quoted where SQL needs it. The words are those of the newest major.
    let words = connect(&server, "postgres").query("SELECT word, quote_ident(word) FROM pg_get_keywords()", &[]).unwrap();
    assert!(words.len() > 400, "{}", words.len());
    for row in &words {
        let (name, theirs): (String, String) = (row.get(0), row.get(1));
        let ours = Relation { schema: "s".to_owned(), name, kind: None, oid: None }.to_string();
        assert!(ours == format!("s.{theirs}") || major < 18 && ours == format!("s.\"{theirs}\""), "{major}: {ours}, {theirs}");
    }
    // The scenario has what it is there for.
    let not_as_often = |count: usize, names: &[&'static str]| -> Vec<&str> {
        names.iter().copied().filter(|name| offline.find(&name.parse().unwrap()).len() != count).collect()
    };
    let there = [
        "app.accounts",
        "app.accounts_id_seq",
        "\"Odd.Schema\".\"Größe\"",
        "renamed_2",
        "app.moved",
        "on_slow",
        "to_slow",
        "unlogged_pkey",
    ];
    let more =
        ["matview", "part_1", "emptied", "kept", "sub_kept", "multi_2", "multi_kept", "locked", "app.t1", "after_rewrite", "after_vacuum"];
    assert_eq!(not_as_often(3, &[&there[..], &more].concat()), [""; 0]);
    let not_there = [
        "gone.t",
        "renamed",
        "public.moved",
        "view",
        "parted",
        "dropped",
        "aborted",
        "sub_aborted",
        "multi_dropped",
        "multi_3",
        "prepared",
    ];
    let nor = ["temporary", "unfinished", "not_kept", "app.t3"];
    assert_eq!(not_as_often(0, &[&not_there[..], &nor].concat()), [""; 0]);

    drop(sessions);
    server.control("stop -m fast").unwrap();
    let file = server.socket().join("names.json");
    let output = file.to_str().unwrap();
    let nothing = pgwal(&["-D", &data, "-o", output]);
    assert_eq!((nothing.status.code(), &nothing.stdout[..], &nothing.stderr[..]), (Some(0), &b""[..], &b""[..]));
    same(&format!("{major}, shut down"), &relations(&Names::read(fs::File::open(&file).unwrap()).unwrap()), &expected);

    // Without pg_control the usual sizes hold.
    fs::rename(server.data().join("global/pg_control"), server.data().join("global/hidden")).unwrap();
    let mut warnings = Vec::new();
    let dir = DataDir::open(&data, |warning| warnings.push(warning.to_string())).unwrap();
    same(&format!("{major}, without pg_control"), &relations(&dir.names(|warning| panic!("{warning}")).unwrap()), &expected);
    assert!(warnings.len() == 1 && warnings[0].ends_with("global/pg_control: does not exist"), "{warnings:?}");
    fs::rename(server.data().join("global/hidden"), server.data().join("global/pg_control")).unwrap();
}

#[test]
fn what_cannot_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = |file: &str| dir.path().join(file).to_str().unwrap().to_owned();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    // Wrong options: one source, and only one.
    for args in [&[][..], &["-D", ".", "-d", "postgres"], &["."]] {
        let output = pgwal(args);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(2), &b""[..]), "{args:?}: {}", said(&output));
    }
    // Nothing was read: an old file stays.
    let (data, old) = (path("data"), path("names.json"));
    fs::write(&old, "old").unwrap();
    let output = pgwal(&["-D", &data, "-o", &old]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), format!("pgwal: {data}: does not exist\n"));
    assert_eq!(fs::read_to_string(&old).unwrap(), "old");
    // No server there.
    for conninfo in [format!("host={data} user=nobody"), format!("postgresql://nobody@/?host={data}")] {
        let output = pgwal(&["-d", &conninfo]);
        assert_eq!((output.status.code(), &output.stdout[..]), (Some(1), &b""[..]), "{}", said(&output));
        assert!(said(&output).contains("No such file or directory"), "{}", said(&output));
    }
    let output = pgwal(&["-d", "hostt=x"]);
    assert!(output.status.code() == Some(1) && said(&output).contains("hostt"), "{}", said(&output));
}

#[test]
fn damage_is_told_and_the_rest_written() {
    let Some(postgres) = Postgres::find_or_skip(None, "names::damage_is_told_and_the_rest_written") else { return };
    let server = postgres.start(&["--data-checksums"], SETTINGS).unwrap();
    let path = connect(&server, "postgres").query_one("SELECT pg_relation_filepath('pg_class')", &[]).unwrap().get::<_, String>(0);
    server.control("stop -m fast").unwrap();
    let data = server.data().to_str().unwrap().to_owned();
    let whole = relations(&written(&["-D", &data], ""));
    let file = server.data().join(&path);
    let mut bytes = fs::read(&file).unwrap();
    bytes[8192 * 2 + 5000] ^= 0x10;
    fs::write(&file, bytes).unwrap();
    let output = pgwal(&["-D", &data]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let place = format!("pgwal: {}, block 2: PageHeaderData.pd_checksum: ", file.display());
    assert!(output.status.code() == Some(1) && stderr.starts_with(&place) && stderr.lines().count() == 1, "{stderr}");
    let found = relations(&Names::read(&output.stdout[..]).unwrap());
    assert!(found.len() > 400 && found.len() < whole.len(), "{} of {}", found.len(), whole.len());
    assert!(found.iter().all(|(rel, relation)| whole.get(rel) == Some(relation)));
}

/// Names are written whole or not at all, and what `-o` names may be more than a file.
#[cfg(unix)]
#[test]
fn the_output_file() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let data = pgwal_testkit::fixtures::root().join("names/data");
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let write = |to: &Path, limit: &str| {
        let script = format!("{limit}\"$0\" names -D \"$1\" -o \"$2\"");
        Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_pgwal")]).arg(&data).arg(to).output().unwrap()
    };
    let listing = || fs::read_dir(home.path()).unwrap().count();
    assert!(write(&at("names"), "").status.success());
    let good = fs::read(at("names")).unwrap();
    // A failing write.
    fs::write(at("names"), "old").unwrap();
    fs::set_permissions(at("names"), fs::Permissions::from_mode(0o600)).unwrap();
    let ran = write(&at("names"), "ulimit -f 0; ");
    assert!(ran.status.code() == Some(1) && String::from_utf8_lossy(&ran.stderr).contains("File too large"), "{ran:?}");
    assert_eq!((fs::read(at("names")).unwrap(), listing()), (b"old".to_vec(), 1));
    // Links, permissions, directories.
    symlink("names", at("link")).unwrap();
    assert!(write(&at("link"), "").status.success());
    assert!(at("link").symlink_metadata().unwrap().is_symlink() && fs::read(at("names")).unwrap() == good);
    assert_eq!(fs::metadata(at("names")).unwrap().permissions().mode() & 0o7777, 0o600);
    for (to, error) in
        [(home.path(), "is a directory"), (&at("none/names"), "No such file or directory"), (Path::new("/dev/full"), "No space left")]
    {
        let ran = write(to, "");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert!(ran.status.code() == Some(1) && said.contains(error), "{}: {said}", to.display());
    }
    // Standard output by its names, also where it is a file that has something already; and a pipe.
    for to in ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        assert!(write(Path::new(to), "").stdout == good, "{to}");
        fs::write(at("log"), "before\n").unwrap();
        assert!(write(Path::new(to), &format!("exec >>'{}'; ", at("log").display())).status.success());
        assert!(fs::read(at("log")).unwrap() == [b"before\n", &good[..]].concat(), "{to}");
    }
    assert!(Command::new("mkfifo").arg(at("fifo")).status().unwrap().success());
    let reader = std::thread::spawn({
        let fifo = at("fifo");
        move || fs::read(fifo).unwrap()
    });
    assert!(write(&at("fifo"), "").status.success());
    assert!(reader.join().unwrap() == good);
    assert!(fs::read_dir(home.path()).unwrap().flatten().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
}
