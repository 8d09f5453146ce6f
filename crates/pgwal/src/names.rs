//! Names instead of numbers: which database, tablespace and relation the object ids in WAL mean.
//!
//! WAL has numbers only. What they mean is in the catalogs of the cluster, and changes: a relation gets a new file number whenever it is
//! rewritten (`VACUUM FULL`, `TRUNCATE`, `REINDEX`, …). A mapping is what held when it was made; [`crate::datadir`] makes one
//! from a data directory.
//!
//! # The file
//! A JSON object, which [`Names::write`] lays out with one relation on a line so that it can be searched and edited by hand:
//!
//! ```
//! # let file = r#"
//! {
//!   "pgwal_names": 1,
//!   "system_identifier": "7301234567890123456",
//!   "major": 17,
//!   "tablespaces": {
//!     "1663": "pg_default"
//!   },
//!   "databases": {
//!     "5": "postgres"
//!   },
//!   "relations": [
//!     {"spc":1663,"db":5,"rel":16394,"schema":"public","name":"accounts","kind":"table","oid":16384}
//!   ]
//! }
//! # "#;
//! # let names = pgwal::names::Names::read(file.as_bytes())?;
//! # assert_eq!(names.relations().count(), 1);
//! # Ok::<(), pgwal::names::ReadError>(())
//! ```
//!
//! | field | meaning |
//! | --- | --- |
//! | `pgwal_names` | version of this format, 1; the only field that must be there |
//! | `system_identifier` | of the cluster, a string as in WAL's long page headers; absent: unknown |
//! | `major` | its major version; absent: unknown |
//! | `tablespaces`, `databases` | names by object id |
//! | `relations` | `spc`, `db` (0 for shared relations), `rel` as in a block reference; `schema` and `name`; where known `kind` (`table`, `index`, `sequence`, `toast`, `materialized view`) and `oid`, which stays when the file number changes |
//!
//! Unknown fields, a number that occurs twice, and a newer version are errors.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::str::FromStr;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::json;
use crate::keywords::is_reserved;
use crate::types::{Oid, RelFileLocator};

/// Names of a cluster's databases, tablespaces and relations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Which cluster it is, to compare with `xlp_sysid`; `None`: not known.
    pub system_identifier: Option<u64>,
    /// Major version of the cluster; `None`: not known.
    pub major: Option<u8>,
    tablespaces: BTreeMap<Oid, String>,
    databases: BTreeMap<Oid, String>,
    relations: BTreeMap<RelFileLocator, Relation>,
}

/// A relation with storage. C: `FormData_pg_class`, catalog/pg_class.h.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// Name of its schema. C: `nspname`.
    pub schema: String,
    /// Its own name. C: `relname`.
    pub name: String,
    /// What it is; `None`: not known.
    pub kind: Option<RelKind>,
    /// Its row in pg_class, the same for its whole life; `None`: not known.
    pub oid: Option<Oid>,
}

/// Kinds of relation that have storage. C: `RELKIND_HAS_STORAGE`, catalog/pg_class.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum RelKind {
    /// `r`.
    #[serde(rename = "table")]
    Table,
    /// `i`.
    #[serde(rename = "index")]
    Index,
    /// `S`.
    #[serde(rename = "sequence")]
    Sequence,
    /// `t`.
    #[serde(rename = "toast")]
    Toast,
    /// `m`.
    #[serde(rename = "materialized view")]
    MaterializedView,
}

impl RelKind {
    /// From `pg_class.relkind`; `None` for kinds without storage.
    pub const fn from_relkind(relkind: u8) -> Option<RelKind> {
        Some(match relkind {
            b'r' => RelKind::Table,
            b'i' => RelKind::Index,
            b'S' => RelKind::Sequence,
            b't' => RelKind::Toast,
            b'm' => RelKind::MaterializedView,
            _ => return None,
        })
    }
}

/// `schema.name`, quoted where SQL needs it.
impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", Ident(&self.schema), Ident(&self.name))
    }
}

impl Names {
    /// Name of a database.
    pub fn database(&self, db: Oid) -> Option<&str> {
        self.databases.get(&db).map(String::as_str)
    }

    /// Name of a tablespace.
    pub fn tablespace(&self, spc: Oid) -> Option<&str> {
        self.tablespaces.get(&spc).map(String::as_str)
    }

    /// The relation with this file number.
    pub fn relation(&self, rel: RelFileLocator) -> Option<&Relation> {
        self.relations.get(&rel)
    }

    /// `database.schema.name` of a relation (`schema.name` of a shared one), which [`RelationName`] reads back; without a name for
    /// it, its three numbers.
    pub fn show(&self, rel: RelFileLocator) -> impl fmt::Display + '_ {
        Shown { names: self, rel }
    }

    /// The databases in the order of their ids.
    pub fn databases(&self) -> impl Iterator<Item = (Oid, &str)> {
        self.databases.iter().map(|(&oid, name)| (oid, name.as_str()))
    }

    /// The tablespaces in the order of their ids.
    pub fn tablespaces(&self) -> impl Iterator<Item = (Oid, &str)> {
        self.tablespaces.iter().map(|(&oid, name)| (oid, name.as_str()))
    }

    /// The relations in the order of their numbers.
    pub fn relations(&self) -> impl Iterator<Item = (RelFileLocator, &Relation)> {
        self.relations.iter().map(|(&rel, relation)| (rel, relation))
    }

    /// The database of this name, exactly as written.
    pub fn database_named(&self, name: &str) -> Option<Oid> {
        self.databases().find(|&(_, known)| known == name).map(|(oid, _)| oid)
    }

    /// The tablespace of this name, exactly as written.
    pub fn tablespace_named(&self, name: &str) -> Option<Oid> {
        self.tablespaces().find(|&(_, known)| known == name).map(|(oid, _)| oid)
    }

    /// All relations that `name` means: in any database or schema that it leaves open.
    pub fn find(&self, name: &RelationName) -> Vec<RelFileLocator> {
        let matches = |rel: RelFileLocator, relation: &Relation| {
            relation.name == name.name
                && name.schema.as_ref().is_none_or(|schema| *schema == relation.schema)
                && name.database.as_ref().is_none_or(|database| self.database(rel.db) == Some(database))
        };
        self.relations().filter(|&(rel, relation)| matches(rel, relation)).map(|(rel, _)| rel).collect()
    }

    /// A relation that `name` would mean if capital and small letters were the same, with as many parts as `name` has.
    pub fn find_in_any_case(&self, name: &RelationName) -> Option<RelationName> {
        let is_same =
            |wanted: &Option<String>, found: &str| wanted.as_ref().is_none_or(|wanted| wanted.to_lowercase() == found.to_lowercase());
        self.relations().find_map(|(rel, relation)| {
            let database = self.database(rel.db).unwrap_or_default();
            let matches = is_same(&Some(name.name.clone()), &relation.name)
                && is_same(&name.schema, &relation.schema)
                && is_same(&name.database, database);
            matches.then(|| RelationName {
                database: name.database.as_ref().map(|_| database.to_owned()),
                schema: name.schema.as_ref().map(|_| relation.schema.clone()),
                name: relation.name.clone(),
            })
        })
    }

    /// Adds a database, and returns the name that it had.
    pub fn insert_database(&mut self, db: Oid, name: String) -> Option<String> {
        self.databases.insert(db, name)
    }

    /// Adds a tablespace, and returns the name that it had.
    pub fn insert_tablespace(&mut self, spc: Oid, name: String) -> Option<String> {
        self.tablespaces.insert(spc, name)
    }

    /// Adds a relation, and returns the one that had its number.
    pub fn insert_relation(&mut self, rel: RelFileLocator, relation: Relation) -> Option<Relation> {
        self.relations.insert(rel, relation)
    }

    /// Reads the file described [above](self).
    ///
    /// # Errors
    /// The input cannot be read, or is not in that form; the message has line and column.
    pub fn read(input: impl Read) -> Result<Names, ReadError> {
        let input = ShortStrings { input, inside: false, escaped: false, len: 0 };
        let file: NamesFile = serde_json::from_reader(BufReader::new(input)).map_err(ReadError)?;
        Ok(Names {
            system_identifier: file.system_identifier,
            major: file.major,
            tablespaces: file.tablespaces.0,
            databases: file.databases.0,
            relations: file.relations.0,
        })
    }

    /// Writes the file described [above](self).
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        write!(out, "{{\n  \"pgwal_names\": {VERSION}")?;
        if let Some(id) = self.system_identifier {
            write!(out, ",\n  \"system_identifier\": \"{id}\"")?;
        }
        if let Some(major) = self.major {
            write!(out, ",\n  \"major\": {major}")?;
        }
        for (field, names) in [("tablespaces", &self.tablespaces), ("databases", &self.databases)] {
            write!(out, ",\n  \"{field}\": {{")?;
            for (n, (oid, name)) in names.iter().enumerate() {
                let comma = if n == 0 { "" } else { "," };
                write!(out, "{comma}\n    \"{}\": {}", oid.0, json::to_string(name)?)?;
            }
            write!(out, "\n  }}")?;
        }
        write!(out, ",\n  \"relations\": [")?;
        for (n, (&rel, relation)) in self.relations.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            write!(out, "{comma}\n    {}", json::to_string(&Row::new(rel, relation))?)?;
        }
        write!(out, "\n  ]\n}}\n")?;
        out.flush()
    }
}

/// A relation's name as SQL writes it: `name`, `schema.name` or `database.schema.name`.
///
/// As in SQL, capital letters count only in double quotes.
///
/// ```
/// use pgwal::names::RelationName;
/// let name: RelationName = r#"shop.Public."Order Lines""#.parse()?;
/// assert_eq!(name.schema.as_deref(), Some("public"));
/// assert_eq!(name.name, "Order Lines");
/// # Ok::<(), pgwal::names::BadName>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelationName {
    /// Its database; `None`: any.
    pub database: Option<String>,
    /// Its schema; `None`: any.
    pub schema: Option<String>,
    /// Its own name.
    pub name: String,
}

/// Quoted where SQL needs it, so that it reads back.
impl fmt::Display for RelationName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in [&self.database, &self.schema].into_iter().flatten() {
            write!(f, "{}.", Ident(part))?;
        }
        Ident(&self.name).fmt(f)
    }
}

/// Text that is not a relation's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadName {
    /// A part of the name is empty.
    Empty,
    /// A double quote does not end, or does not end where the part does.
    Quote,
    /// More than database, schema and name.
    TooManyParts,
}

impl fmt::Display for BadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadName::Empty => "expected name, schema.name or database.schema.name; a part is empty",
            BadName::Quote => "a double quote must enclose a whole part of the name",
            BadName::TooManyParts => "expected name, schema.name or database.schema.name; there are more parts",
        })
    }
}

impl std::error::Error for BadName {}

impl FromStr for RelationName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<RelationName, BadName> {
        RelationName::parse(text, str::to_ascii_lowercase)
    }
}

impl RelationName {
    /// Reads a name as if every part of it were in double quotes: capital letters stay.
    ///
    /// # Errors
    /// It is no name.
    pub fn with_capitals(text: &str) -> Result<RelationName, BadName> {
        RelationName::parse(text, str::to_owned)
    }

    /// Reads a name; `unquoted` says what a part without quotes means.
    fn parse(text: &str, unquoted: fn(&str) -> String) -> Result<RelationName, BadName> {
        let mut parts = Vec::new();
        let mut left = text;
        loop {
            let (part, rest) = match left.strip_prefix('"') {
                Some(quoted) => quoted_part(quoted)?,
                None => {
                    let end = left.find('.').unwrap_or(left.len());
                    let (part, rest) = left.split_at(end);
                    (unquoted(part), rest)
                }
            };
            if part.is_empty() {
                return Err(BadName::Empty);
            }
            if part.contains('"') && !left.starts_with('"') {
                return Err(BadName::Quote);
            }
            parts.push(part);
            match rest.strip_prefix('.') {
                Some(rest) => left = rest,
                None if rest.is_empty() => break,
                None => return Err(BadName::Quote),
            }
        }
        let name = parts.pop().ok_or(BadName::Empty)?;
        let (schema, database) = (parts.pop(), parts.pop());
        if parts.is_empty() { Ok(RelationName { database, schema, name }) } else { Err(BadName::TooManyParts) }
    }
}

/// The part whose opening quote is gone, and what follows its closing one; a quote in it is doubled.
fn quoted_part(text: &str) -> Result<(String, &str), BadName> {
    let (mut part, mut left) = (String::new(), text);
    loop {
        let (before, after) = left.split_once('"').ok_or(BadName::Quote)?;
        part.push_str(before);
        match after.strip_prefix('"') {
            Some(rest) => {
                part.push('"');
                left = rest;
            }
            None => return Ok((part, after)),
        }
    }
}

/// Why a mapping cannot be read.
#[derive(Debug)]
pub struct ReadError(serde_json::Error);

impl ReadError {
    /// Line that it was found on, counted from 1; `None` where the input itself cannot be read.
    pub fn line(&self) -> Option<usize> {
        Some(self.0.line()).filter(|&line| line > 0)
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = self.0.to_string();
        match self.line() {
            Some(line) => {
                let place = format!(" at line {line} column {}", self.0.column());
                write!(f, "line {line}, column {}: {}", self.0.column(), what.strip_suffix(&place).unwrap_or(&what))
            }
            None => f.write_str(&what),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

struct Shown<'n> {
    names: &'n Names,
    rel: RelFileLocator,
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shown { names, rel } = *self;
        match (names.relation(rel), names.database(rel.db)) {
            (None, _) => rel.fmt(f),
            (Some(relation), Some(database)) => write!(f, "{}.{relation}", Ident(database)),
            (Some(relation), None) if rel.db.0 == 0 => relation.fmt(f),
            (Some(relation), None) => write!(f, "{}.{relation}", rel.db.0),
        }
    }
}

/// An identifier, quoted where SQL would not read it as it is. C: `quote_identifier`.
struct Ident<'n>(&'n str);

impl fmt::Display for Ident<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_start = |c: char| c.is_ascii_lowercase() || c == '_';
        let is_plain = |c: char| is_start(c) || c.is_ascii_digit();
        if self.0.starts_with(is_start) && self.0.chars().all(is_plain) && !is_reserved(self.0) {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('"', "\"\""))
    }
}

/// Version of the file format.
const VERSION: u64 = 1;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamesFile {
    #[serde(rename = "pgwal_names", deserialize_with = "version")]
    _version: (),
    #[serde(default, deserialize_with = "system_identifier")]
    system_identifier: Option<u64>,
    major: Option<u8>,
    #[serde(default)]
    tablespaces: Oids,
    #[serde(default)]
    databases: Oids,
    #[serde(default)]
    relations: Rows,
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    match u64::deserialize(deserializer)? {
        VERSION => Ok(()),
        other => Err(D::Error::custom(format_args!("expected version {VERSION} of the format, found {other}"))),
    }
}

fn system_identifier<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let bad = |text| D::Error::custom(format_args!("system_identifier: expected a number in a string, found \"{text}\""));
    Option::<String>::deserialize(deserializer)?.map(|text| text.parse().map_err(|_| bad(text))).transpose()
}

#[derive(Default)]
struct Oids(BTreeMap<Oid, String>);

impl<'de> Deserialize<'de> for Oids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Oids, D::Error> {
        struct OidsVisitor;
        impl<'de> Visitor<'de> for OidsVisitor {
            type Value = Oids;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("names by object id")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Oids, A::Error> {
                let mut oids = BTreeMap::new();
                while let Some((key, name)) = map.next_entry::<String, String>()? {
                    let oid = key.parse().map_err(|_| A::Error::custom(format_args!("expected an object id, found \"{key}\"")))?;
                    if oids.insert(Oid(oid), name).is_some() {
                        return Err(A::Error::custom(format_args!("object id {oid} occurs twice")));
                    }
                }
                Ok(Oids(oids))
            }
        }
        deserializer.deserialize_map(OidsVisitor)
    }
}

/// A line of the file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    spc: u32,
    db: u32,
    rel: u32,
    schema: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<RelKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    oid: Option<u32>,
}

impl Row {
    fn new(rel: RelFileLocator, relation: &Relation) -> Row {
        let Relation { schema, name, kind, oid } = relation.clone();
        Row { spc: rel.spc.0, db: rel.db.0, rel: rel.rel.0, schema, name, kind, oid: oid.map(|oid| oid.0) }
    }

    fn into_relation(self) -> (RelFileLocator, Relation) {
        let Row { spc, db, rel, schema, name, kind, oid } = self;
        (RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }, Relation { schema, name, kind, oid: oid.map(Oid) })
    }
}

#[derive(Default)]
struct Rows(BTreeMap<RelFileLocator, Relation>);

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Rows, D::Error> {
        struct RowsVisitor;
        impl<'de> Visitor<'de> for RowsVisitor {
            type Value = Rows;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of relations")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = BTreeMap::new();
                while let Some(row) = seq.next_element::<Row>()? {
                    let (rel, relation) = row.into_relation();
                    if rows.insert(rel, relation).is_some() {
                        return Err(A::Error::custom(format_args!("relation {rel} occurs twice")));
                    }
                }
                Ok(Rows(rows))
            }
        }
        deserializer.deserialize_seq(RowsVisitor)
    }
}

/// Bytes of a string in a file of names, at most; a name has 63, or a few more where PostgreSQL was built so.
const STRING: usize = 64 << 10;

/// JSON whose strings are short: a reader of JSON takes a whole string into memory before it asks whether it is wanted.
struct ShortStrings<R> {
    input: R,
    inside: bool,
    escaped: bool,
    len: usize,
}

impl<R: Read> Read for ShortStrings<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        for &byte in buffer.get(..read).unwrap_or_default() {
            match (self.inside, self.escaped, byte) {
                (true, true, _) => self.escaped = false,
                (true, false, b'\\') => self.escaped = true,
                (_, _, b'"') => (self.inside, self.len) = (!self.inside, 0),
                _ => {}
            }
            self.len += usize::from(self.inside);
            if self.len > STRING {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a string of more than 64 kB, which is no name"));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locator(spc: u32, db: u32, rel: u32) -> RelFileLocator {
        RelFileLocator { spc: Oid(spc), db: Oid(db), rel: Oid(rel) }
    }

    fn relation(schema: &str, name: &str) -> Relation {
        Relation { schema: schema.to_owned(), name: name.to_owned(), kind: None, oid: None }
    }

    fn sample() -> Names {
        let mut names = Names { system_identifier: Some(u64::MAX), major: Some(17), ..Names::default() };
        names.insert_tablespace(Oid(1663), "pg_default".to_owned());
        names.insert_database(Oid(5), "postgres".to_owned());
        names.insert_database(Oid(16400), "Sales \"EU\"".to_owned());
        let table = Relation { kind: Some(RelKind::Table), oid: Some(Oid(16384)), ..relation("public", "accounts") };
        names.insert_relation(locator(1663, 5, 16394), table);
        names.insert_relation(locator(1663, 16400, 16394), relation("public", "accounts"));
        names.insert_relation(locator(1663, 16400, 16395), relation("a.b", "Größe\n"));
        names.insert_relation(locator(1664, 0, 1262), relation("pg_catalog", "pg_database"));
        names.insert_relation(locator(1663, 77, 1), relation("public", "lost"));
        names
    }

    #[test]
    fn written_and_read_back() {
        for names in [sample(), Names::default()] {
            let mut file = Vec::new();
            names.write(&mut file).unwrap();
            assert_eq!(Names::read(&file[..]).unwrap(), names, "{}", String::from_utf8_lossy(&file));
        }
        assert_eq!(Names::read(&br#"{"pgwal_names":1}"#[..]).unwrap(), Names::default());
    }

    #[test]
    fn names_steer_no_terminal() {
        let mut names = sample();
        names.insert_database(Oid(16401), "\u{9b}2J\u{202e}\u{7f}".to_owned());
        names.insert_relation(locator(1663, 5, 9), relation("a\u{2066}", "\u{85}\u{61c}\u{e0041}"));
        let mut file = Vec::new();
        names.write(&mut file).unwrap();
        let text = String::from_utf8(file).unwrap();
        assert!(!text.lines().any(crate::printable::has_unprintable), "{text:?}");
        assert_eq!(Names::read(text.as_bytes()).unwrap(), names);
    }

    #[test]
    fn errors_say_the_line() {
        let row = r#"{"spc":1663,"db":5,"rel":1,"schema":"s","name":"n"}"#;
        for (file, line, what) in [
            ("{\n\"pgwal_names\": 2}".to_owned(), 2, "expected version 1 of the format, found 2"),
            ("{\n}".to_owned(), 2, "missing field `pgwal_names`"),
            ("{\"pgwal_names\":1,\n\"relation\": []}".to_owned(), 2, "unknown field `relation`"),
            (
                "{\"pgwal_names\":1,\n\n\"databases\": {\"5\": \"a\", \"five\": \"b\"}}".to_owned(),
                3,
                "expected an object id, found \"five\"",
            ),
            ("{\"pgwal_names\":1,\n\"databases\": {\"5\": \"a\",\n \"5\": \"b\"}}".to_owned(), 3, "object id 5 occurs twice"),
            (format!("{{\"pgwal_names\":1,\"relations\": [\n{row},\n{row}]}}"), 3, "relation 1663/5/1 occurs twice"),
            ("{\"pgwal_names\":1,\n\"system_identifier\": \"-1\"}".to_owned(), 2, "expected a number in a string, found \"-1\""),
            (
                format!("{{\"pgwal_names\":1,\"relations\": [\n{}]}}", row.replace("\"n\"", "\"n\",\"kind\":\"view\"")),
                2,
                "unknown variant `view`",
            ),
            ("{\"pgwal_names\":1,\n\"relations\": [".to_owned(), 2, "EOF"),
        ] {
            let error = Names::read(file.as_bytes()).expect_err(&file);
            assert_eq!(error.line(), Some(line), "{file}: {error}");
            assert!(error.to_string().contains(what), "{file}: {error}");
            assert_eq!(error.to_string().matches("line").count(), 1, "{error}");
        }
    }

    #[test]
    fn shown_and_found_again() {
        let names = sample();
        for (rel, shown) in [
            (locator(1663, 5, 16394), "postgres.public.accounts"),
            (locator(1663, 16400, 16395), "\"Sales \"\"EU\"\"\".\"a.b\".\"Größe\n\""),
            (locator(1664, 0, 1262), "pg_catalog.pg_database"),
        ] {
            assert_eq!(names.show(rel).to_string(), shown);
            assert_eq!(names.find(&shown.parse().unwrap()), [rel], "{shown}");
        }
        assert_eq!(names.show(locator(1663, 5, 9)).to_string(), "1663/5/9");
        assert_eq!(names.show(locator(1663, 77, 1)).to_string(), "77.public.lost");
        let found = |text: &str| names.find(&text.parse().unwrap()).len();
        assert_eq!((found("accounts"), found("PUBLIC.Accounts"), found("\"Accounts\"")), (2, 2, 0));
        assert_eq!((found("postgres.public.accounts"), found("public.pg_database")), (1, 0));
        assert_eq!(names.database_named("postgres"), Some(Oid(5)));
        assert_eq!(names.tablespace_named("pg_global"), None);
        assert_eq!(names.tablespace(Oid(1663)), Some("pg_default"));
    }

    /// As `quote_ident` of a real server does.
    #[test]
    fn names_that_sql_would_not_read_are_quoted() {
        for (name, shown) in [
            ("user", "\"user\""),
            ("order", "\"order\""),
            ("between", "\"between\""), // of a column name
            ("left", "\"left\""),       // of a type or function name
            ("abort", "abort"),         // unreserved
            ("a$b", "\"a$b\""),
            ("_a1", "_a1"),
            ("1a", "\"1a\""),
            ("", "\"\""),
            ("größe", "\"größe\""),
            ("A\"b", "\"A\"\"b\""),
        ] {
            assert_eq!(Ident(name).to_string(), shown);
            let relation = RelationName { database: None, schema: Some("user".to_owned()), name: name.to_owned() };
            let text = relation.to_string();
            assert_eq!(text, format!("\"user\".{shown}"));
            assert!(name.is_empty() || text.parse() == Ok(relation), "{text}");
        }
    }

    #[test]
    fn capitals_stay_if_asked() {
        let name = RelationName::with_capitals("Public.\"a.B\"").unwrap();
        assert_eq!(name.to_string(), "\"Public\".\"a.B\"");
        assert_eq!("Public.\"a.B\"".parse::<RelationName>().unwrap().to_string(), "public.\"a.B\"");
    }

    #[test]
    fn found_whatever_the_case() {
        let mut names = sample();
        names.insert_relation(locator(1663, 5, 20), relation("App", "Orders"));
        let found = |text: &str| names.find_in_any_case(&text.parse().unwrap()).map(|found| found.to_string());
        assert_eq!(found("Orders").as_deref(), Some("\"Orders\""));
        assert_eq!(found("app.orders").as_deref(), Some("\"App\".\"Orders\""));
        assert_eq!(found("postgres.app.orders").as_deref(), Some("postgres.\"App\".\"Orders\""));
        assert_eq!(found("customers"), None);
        assert_eq!(found("\"sales \"\"eu\"\"\".public.accounts").as_deref(), Some("\"Sales \"\"EU\"\"\".public.accounts"));
    }

    #[test]
    fn texts_that_are_no_name() {
        for (text, expected) in [
            ("", BadName::Empty),
            ("a.", BadName::Empty),
            ("a..b", BadName::Empty),
            ("\"\".b", BadName::Empty),
            ("a.b.c.d", BadName::TooManyParts),
            ("\"a", BadName::Quote),
            ("\"a\"b", BadName::Quote),
            ("a\"b\"", BadName::Quote),
            ("\"a\"\"", BadName::Quote),
        ] {
            assert_eq!(text.parse::<RelationName>(), Err(expected), "{text}");
        }
    }
}
