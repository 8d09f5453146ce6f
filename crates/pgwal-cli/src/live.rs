//! Names from a live server.

use std::error::Error;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use pgwal::names::{Names, RelKind, Relation};
use pgwal::types::{Oid, RelFileLocator};
use pgwal_stream::connection::{self, ConnectError, Connection, Mode, ResultSet};
use pgwal_stream::conninfo::Config;

use crate::server;

/// Asks the server that `conninfo` leads to, in every database that takes connections.
///
/// What one database refuses goes to `warn`, and the others go on.
pub fn names(conninfo: &str, mut warn: impl FnMut(String)) -> Result<Names, Box<dyn Error>> {
    let mut config = Config { client_encoding: Some("UTF8".to_owned()), ..server::config(conninfo)? };
    config.connect_timeout.get_or_insert(server::TIMEOUT);
    let mut server = server::connect(&config, Mode::Ordinary, &Arc::default())?;
    let mut names = Names::default();
    // Where this is forbidden, the names are still there to see.
    match query(&mut server, "SELECT system_identifier FROM pg_catalog.pg_control_system()") {
        Ok(set) => names.system_identifier = Some(number::<i64>(&set, 0, 0)? as u64),
        Err(e @ QueryError::Connection(connection::Error::Server(_))) => warn(format!("the system identifier: {e}")),
        Err(e) => return Err(e.into()),
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
            // Nor do its other databases.
            if e.downcast_ref::<ConnectError>().is_some_and(|e| matches!(e.last(), Some(connection::Error::Timeout))) {
                return Err(e);
            }
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
    let mut server = server::connect(&config, Mode::Ordinary, &Arc::default())?;
    // Piece by piece: what a server answers to one command is bounded.
    query(&mut server, &format!("BEGIN READ ONLY; DECLARE relations NO SCROLL CURSOR FOR {RELATIONS}"))?;
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

/// Why a query has no answer.
#[derive(Debug)]
enum QueryError {
    /// The server refuses, or there is no connection any more.
    Connection(connection::Error),
    /// The answer has no rows, and not even a command.
    Nothing,
}

impl fmt::Display for QueryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QueryError::Connection(connection::Error::Timeout) => f.write_str("the server did not answer a query in time"),
            QueryError::Connection(error) => error.fmt(f),
            QueryError::Nothing => f.write_str("the server answered a query with nothing"),
        }
    }
}

impl Error for QueryError {}

/// The rows of one query.
fn query(server: &mut Connection, sql: &str) -> Result<ResultSet, QueryError> {
    server.query(sql).map_err(QueryError::Connection)?.pop().ok_or(QueryError::Nothing)
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
