//! WAL for the comparison, written by a real server.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use nix::fcntl::PosixFadviseAdvice;
use pgwal_testkit::server::{Postgres, Server};
use pgwal_testkit::{SegmentName, aligned};

use super::Result;
use crate::interrupt;

/// What the WAL is full of.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Transactions of pgbench, with page images
    Pgbench,
    /// The same with full_page_writes = off: small records
    Small,
    /// COPY: records of many rows each
    Copy,
    /// Page images alone
    Images,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Pgbench, Kind::Small, Kind::Copy, Kind::Images];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Pgbench => "pgbench",
            Kind::Small => "small",
            Kind::Copy => "copy",
            Kind::Images => "images",
        }
    }

    pub fn describe(self) -> &'static str {
        match self {
            Kind::Pgbench => "pgbench, with page images",
            Kind::Small => "small records, pgbench with full_page_writes = off",
            Kind::Copy => "COPY, records of many rows each",
            Kind::Images => "page images, of building indexes and rewriting tables",
        }
    }

    /// What is there before the WAL begins that counts.
    fn prepare(self, server: &Server) -> Result<()> {
        match self {
            Kind::Pgbench | Kind::Small => {
                server.client("pgbench", ["-i", "-s", "10", "-q", "postgres"])?;
            }
            Kind::Copy => {
                // Rows of usual width, in a file that the server reads.
                let rows = "SELECT i, md5(i::text), i % 97, now() FROM generate_series(1, 100000) i";
                server.sql("CREATE TABLE copied (id bigint, name text, kind integer, at timestamptz)")?;
                server.sql(&format!("COPY ({rows}) TO '{}/rows'", server.dir().display()))?;
            }
            Kind::Images => {
                server.sql("CREATE TABLE rewritten AS SELECT i AS id, md5(i::text) AS name FROM generate_series(1, 200000) i")?;
            }
        }
        server.sql("CHECKPOINT")?;
        Ok(())
    }

    /// Writes some megabytes of it.
    fn write(self, server: &Server) -> Result<()> {
        match self {
            Kind::Pgbench | Kind::Small => {
                server.client("pgbench", ["-n", "-c", "4", "-T", "3", "postgres"])?;
            }
            Kind::Copy => {
                server.sql(&format!("COPY copied FROM '{}/rows'", server.dir().display()))?;
            }
            Kind::Images => {
                server.sql("CREATE INDEX one ON rewritten (id, name); DROP INDEX one")?;
                server.sql("VACUUM FULL rewritten")?;
            }
        }
        Ok(())
    }
}

/// Has a server write so much WAL, and copies the finished segments to `to`.
pub fn write(postgres: &Postgres, kind: Kind, megabytes: u64, to: &Path) -> Result<PathBuf> {
    fs::create_dir(to)?;
    let settings = "max_wal_size = 64GB\ncheckpoint_timeout = 1h\nwal_keep_size = 64GB\nautovacuum = on\nsynchronous_commit = off";
    let full_page_writes = if kind == Kind::Small { "off" } else { "on" };
    let server = postgres.start(&[], &format!("{settings}\nfull_page_writes = {full_page_writes}"))?;
    kind.prepare(&server)?;
    let start = server.sql("SELECT pg_switch_wal()")?;
    loop {
        interrupt::check()?;
        kind.write(&server)?;
        let written: u64 = server.sql(&format!("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '{start}')::bigint"))?.parse()?;
        if written >> 20 >= megabytes {
            break;
        }
    }
    let first = server.sql(&format!("SELECT pg_walfile_name('{start}'::pg_lsn + 16777216)"))?;
    let last = server.sql("SELECT pg_walfile_name(pg_switch_wal())")?;
    for file in fs::read_dir(server.wal())?.flatten() {
        interrupt::check()?;
        let name = file.file_name().to_string_lossy().into_owned();
        if is_segment(&file.path()) && *first <= *name && *name < *last {
            fs::copy(file.path(), to.join(name))?;
        }
    }
    Ok(to.to_owned())
}

/// Puts `segments` into the page cache as files are there that were read from the disk: in large pieces, where the file system has
/// them. Those of a file that was just written are of any size, and both programs need a quarter more time for small ones.
pub fn read_from_disk(segments: &[PathBuf]) -> Result<()> {
    let mut buffer = aligned::Buffer::new(1 << 20);
    for segment in segments {
        let mut file = File::open(segment)?;
        file.sync_all()?;
        nix::fcntl::posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
        while file.read(buffer.as_mut_slice())? > 0 {}
    }
    Ok(())
}

pub fn is_segment(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().parse::<SegmentName>().is_ok())
}
