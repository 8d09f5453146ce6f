//! Names from a live server.

use std::env;
use std::error::Error;
use std::path::Path;

use pgwal::names::{Names, RelKind, Relation};
use pgwal::types::{Oid, RelFileLocator};
use postgres::types::{FromSql, Type};
use postgres::{Client, Config, NoTls};

/// Asks the server that `conninfo` leads to, in every database that takes connections.
///
/// What one database refuses goes to `warn`, and the others go on.
pub fn names(conninfo: &str, mut warn: impl FnMut(String)) -> Result<Names, Box<dyn Error>> {
    let config = config(conninfo)?;
    let mut client = connect(&config).map_err(|e| reason(&e))?;
    let mut names = Names::default();
    // Where this is forbidden, the names are still there to see.
    let identifier = client.query_one("SELECT system_identifier FROM pg_catalog.pg_control_system()", &[]);
    match identifier {
        Ok(row) => names.system_identifier = Some(row.try_get::<_, i64>(0)? as u64),
        Err(e) => warn(format!("the system identifier: {}", reason(&e))),
    }
    let version: String = client.query_one("SELECT pg_catalog.current_setting('server_version_num')", &[])?.try_get(0)?;
    names.major = version.parse::<u32>().ok().and_then(|number| u8::try_from(number / 10_000).ok());
    for row in client.query("SELECT oid, spcname FROM pg_catalog.pg_tablespace", &[])? {
        names.insert_tablespace(Oid(row.try_get(0)?), row.try_get::<_, Lossy>(1)?.0);
    }
    let databases = client.query("SELECT oid, datname, datallowconn FROM pg_catalog.pg_database ORDER BY oid", &[])?;
    drop(client);
    for row in databases {
        let (oid, name, connects) = (Oid(row.try_get(0)?), row.try_get::<_, Lossy>(1)?.0, row.try_get(2)?);
        if connects && let Err(e) = relations(&config, &name, oid, &mut names) {
            warn(format!("database {name}: {}", reason(&e)));
        }
        names.insert_database(oid, name);
    }
    Ok(names)
}

/// The relations with storage; temporary ones have no WAL.
const RELATIONS: &str = "
SELECT c.oid, n.nspname, c.relname, c.relkind::pg_catalog.text, c.relisshared,
       coalesce(nullif(c.reltablespace, 0), d.dattablespace), pg_catalog.pg_relation_filenode(c.oid)
  FROM pg_catalog.pg_class c
  JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database()
 WHERE c.relpersistence <> 't' AND pg_catalog.pg_relation_filenode(c.oid) IS NOT NULL";

fn relations(config: &Config, database: &str, oid: Oid, names: &mut Names) -> Result<(), postgres::Error> {
    let mut client = connect(config.clone().dbname(database))?;
    for row in client.query(RELATIONS, &[])? {
        let shared: bool = row.try_get(4)?;
        let db = if shared { Oid(0) } else { oid };
        let rel = RelFileLocator { spc: Oid(row.try_get(5)?), db, rel: Oid(row.try_get(6)?) };
        let kind: String = row.try_get(3)?;
        let (schema, name) = (row.try_get::<_, Lossy>(1)?.0, row.try_get::<_, Lossy>(2)?.0);
        let kind = kind.bytes().next().and_then(RelKind::from_relkind);
        names.insert_relation(rel, Relation { schema, name, kind, oid: Some(Oid(row.try_get(0)?)) });
    }
    Ok(())
}

/// A name; bytes that are not UTF-8, which a database with encoding `SQL_ASCII` may have, are replaced.
struct Lossy(String);

impl<'a> FromSql<'a> for Lossy {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Lossy, Box<dyn Error + Sync + Send>> {
        Ok(Lossy(String::from_utf8_lossy(raw).into_owned()))
    }
    fn accepts(ty: &Type) -> bool {
        *ty == Type::NAME
    }
}

fn connect(config: &Config) -> Result<Client, postgres::Error> {
    config.connect(NoTls)
}

/// The driver's error says "db error"; what the server said is its source.
fn reason(error: &postgres::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Reads a connection string as psql does, and fills in what is missing from libpq's environment variables and defaults.
fn config(conninfo: &str) -> Result<Config, Box<dyn Error>> {
    let is_name = !conninfo.contains('=') && !conninfo.starts_with("postgresql://") && !conninfo.starts_with("postgres://");
    let mut config: Config = if is_name { Config::new() } else { conninfo.parse().map_err(|e| format!("{conninfo}: {e}"))? };
    if is_name && !conninfo.is_empty() {
        config.dbname(conninfo);
    }
    let variable = |name| env::var(name).ok().filter(|value| !value.is_empty());
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        // libpq's own default is the folder of its build; this is Debian's and Red Hat's.
        let socket = "/var/run/postgresql";
        match variable("PGHOST") {
            Some(host) => config.host(&host),
            None if Path::new(socket).is_dir() => config.host(socket),
            None => config.host("localhost"),
        };
    }
    if let (true, Some(port)) = (config.get_ports().is_empty(), variable("PGPORT")) {
        config.port(port.parse().map_err(|_| format!("PGPORT: expected a port number, found \"{port}\""))?);
    }
    if let (None, Some(user)) = (config.get_user(), variable("PGUSER")) {
        config.user(&user);
    }
    if let (None, Some(password)) = (config.get_password(), variable("PGPASSWORD")) {
        config.password(password);
    }
    if let (None, Some(database)) = (config.get_dbname(), variable("PGDATABASE")) {
        config.dbname(&database);
    }
    if config.get_application_name().is_none() {
        config.application_name("pgwal");
    }
    Ok(config)
}
