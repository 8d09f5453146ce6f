//! Names from a live server.

use std::error::Error;
use std::str::FromStr;

use pgwal::names::{Names, RelKind, Relation};
use pgwal::types::{Oid, RelFileLocator};
use pgwal_stream::connection::{Connection, Mode, ResultSet};
use pgwal_stream::conninfo::Config;

use crate::server;

/// Asks the server that `conninfo` leads to, in every database that takes connections.
///
/// What one database refuses goes to `warn`, and the others go on.
pub fn names(conninfo: &str, mut warn: impl FnMut(String)) -> Result<Names, Box<dyn Error>> {
    let config = Config { client_encoding: Some("UTF8".to_owned()), ..server::config(conninfo)? };
    let mut server = Connection::connect(&config, Mode::Ordinary)?;
    let mut names = Names::default();
    // Where this is forbidden, the names are still there to see.
    match query(&mut server, "SELECT system_identifier FROM pg_catalog.pg_control_system()") {
        Ok(set) => names.system_identifier = Some(number::<i64>(&set, 0, 0)? as u64),
        Err(e) => warn(format!("the system identifier: {e}")),
    }
    names.major = server.major().and_then(|major| u8::try_from(major).ok());
    let tablespaces = query(&mut server, "SELECT oid, spcname FROM pg_catalog.pg_tablespace")?;
    for row in 0..tablespaces.rows.len() {
        names.insert_tablespace(Oid(number(&tablespaces, row, 0)?), text(&tablespaces, row, 1));
    }
    let databases = query(&mut server, "SELECT oid, datname, datallowconn FROM pg_catalog.pg_database ORDER BY oid")?;
    drop(server);
    for row in 0..databases.rows.len() {
        let (oid, name) = (Oid(number(&databases, row, 0)?), text(&databases, row, 1));
        if is_true(&databases, row, 2)
            && let Err(e) = relations(&config, &name, oid, &mut names)
        {
            warn(format!("database {name}: {e}"));
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

fn relations(config: &Config, database: &str, oid: Oid, names: &mut Names) -> Result<(), Box<dyn Error>> {
    let config = Config { dbname: database.to_owned(), ..config.clone() };
    let mut server = Connection::connect(&config, Mode::Ordinary)?;
    // Piece by piece: what a server answers to one command is bounded.
    server.query(&format!("BEGIN READ ONLY; DECLARE relations NO SCROLL CURSOR FOR {RELATIONS}"))?;
    loop {
        let set = query(&mut server, "FETCH 10000 FROM relations")?;
        if set.rows.is_empty() {
            return Ok(());
        }
        for row in 0..set.rows.len() {
            let db = if is_true(&set, row, 4) { Oid(0) } else { oid };
            let rel = RelFileLocator { spc: Oid(number(&set, row, 5)?), db, rel: Oid(number(&set, row, 6)?) };
            let kind = text(&set, row, 3).bytes().next().and_then(RelKind::from_relkind);
            let oid = Some(Oid(number(&set, row, 0)?));
            names.insert_relation(rel, Relation { schema: text(&set, row, 1), name: text(&set, row, 2), kind, oid });
        }
    }
}

/// The rows of one query.
fn query(server: &mut Connection, sql: &str) -> Result<ResultSet, Box<dyn Error>> {
    server.query(sql)?.pop().ok_or_else(|| "the server answered a query with nothing".into())
}

fn number<N: FromStr>(set: &ResultSet, row: usize, column: usize) -> Result<N, Box<dyn Error>> {
    let text = text(set, row, column);
    text.parse().map_err(|_| format!("the server answered with \"{text}\": expected a number").into())
}

fn is_true(set: &ResultSet, row: usize, column: usize) -> bool {
    set.bytes(row, column) == Some(b"t")
}

/// A value; bytes that are not UTF-8, which a name in a database with encoding `SQL_ASCII` may have, are replaced.
fn text(set: &ResultSet, row: usize, column: usize) -> String {
    String::from_utf8_lossy(set.bytes(row, column).unwrap_or_default()).into_owned()
}
