//! Writes the seeds of the fuzz targets `message` and `receiver`.
//!
//! `cargo run -p pgwal-stream --example seeds`, from the top of the repository. What fuzzing found (files named `found-…`) stays.

use std::fs;
use std::path::Path;

use pgwal::types::{TimestampTz, Xid};
use pgwal::{Lsn, WalFormat};
use pgwal_stream::message::{FromBackup, FromWalReceiver, FromWalSender, HotStandbyFeedback, Keepalive, StandbyStatus, XLogData};
use pgwal_testkit::wal::{MIB, RecordBuilder, Wal};

fn main() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    for (target, seeds) in [("message", messages()), ("receiver", streams())] {
        let dir = corpus.join(target);
        fs::create_dir_all(&dir).expect("a folder for the seeds");
        for old in fs::read_dir(&dir).expect("the folder").flatten() {
            if !old.file_name().to_string_lossy().starts_with("found-") {
                fs::remove_file(old.path()).expect("an old seed");
            }
        }
        for (name, bytes) in seeds {
            fs::write(dir.join(name), bytes).expect("a seed");
        }
    }
}

fn messages() -> Vec<(String, Vec<u8>)> {
    let time = TimestampTz(840_000_000_000_000);
    let written = |kind: u8, write: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = vec![kind];
        write(&mut bytes);
        bytes
    };
    let data = FromWalSender::XLogData(XLogData { start: Lsn(0x100_0000), server_end: Lsn(0x100_0004), time, data: b"data" });
    let keepalive = FromWalSender::Keepalive(Keepalive { server_end: Lsn(0x100_0000), time, wants_reply: true });
    let status = StandbyStatus { write: Lsn(3), flush: Lsn(2), apply: Lsn(1), time, wants_reply: true };
    let feedback = HotStandbyFeedback { time, xmin: Xid(700), epoch: 1, catalog_xmin: Xid(650), catalog_epoch: 2 };
    let mut seeds = vec![
        ("xlogdata".to_owned(), written(0, &|out| data.write(out))),
        ("keepalive".to_owned(), written(0, &|out| keepalive.write(out))),
        ("status".to_owned(), written(1, &|out| FromWalReceiver::Status(status).write(out))),
        ("feedback".to_owned(), written(1, &|out| FromWalReceiver::Feedback(feedback).write(out))),
    ];
    let parts = [
        ("archive", FromBackup::Archive { name: "16400.tar", tablespace: "/srv/apart" }),
        ("manifest", FromBackup::Manifest),
        ("data", FromBackup::Data(b"data")),
        ("progress", FromBackup::Progress(1 << 40)),
    ];
    seeds.extend(parts.map(|(name, part)| (format!("backup-{name}"), written(2, &|out| part.write(out)))));
    let strings = [
        ("words", "host=db.example.org,/run port=5432,5433 user=me password='a b\\'c\\\\d' sslmode=verify-full connect_timeout=5"),
        ("uri", "postgresql://me:p%40ss@[::1]:5433,db.example.org/postgres?sslmode=require&target_session_attrs=primary"),
        ("socket", "postgres://%2Fvar%2Frun/postgres?application_name=x&keepalives=0"),
    ];
    seeds.extend(strings.map(|(name, text)| (format!("conninfo-{name}"), [&[3], text.as_bytes()].concat())));
    let manifest = "{ \"PostgreSQL-Backup-Manifest-Version\": 2,\n\"System-Identifier\": 7711197769568478309,\n\"Files\": [\n\
                    { \"Path\": \"PG_VERSION\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\", \
                    \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"00c12b4a\" },\n\
                    { \"Encoded-Path\": \"62617365ff\", \"Size\": 3, \"Last-Modified\": \"2026-01-01 00:00:00 GMT\" }\n],\n\
                    \"WAL-Ranges\": [\n{ \"Timeline\": 1, \"Start-LSN\": \"0/2000028\", \"End-LSN\": \"0/2000100\" }\n],\n";
    seeds.push(("manifest".to_owned(), [&[4], manifest.as_bytes()].concat()));
    seeds
}

/// WAL of a few majors, from the start of a segment on, over pages and into the next segment.
fn streams() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    for major in [10, 15, 19] {
        let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(major) };
        let mut wal = Wal::new(fmt).starting_at(Lsn((16 * MIB).into()));
        for len in [40, 300, 9000, 100, 20_000] {
            wal.record(&RecordBuilder::filler(len));
        }
        for (name, warn, piece) in [("stop", 0, 3), ("warn", 1, 10)] {
            seeds.push((format!("{name}-v{major}"), [&[major - 10, warn, piece], wal.bytes()].concat()));
        }
    }
    let fmt = WalFormat { segment_size: MIB, ..WalFormat::new(17) };
    let mut wal = Wal::new(fmt).starting_at(Lsn((16 * MIB).into()));
    wal.record(&RecordBuilder::filler(40));
    wal.switch();
    wal.record(&RecordBuilder::filler(50));
    seeds.push(("switch-v17".to_owned(), [&[7, 0, 255], wal.bytes()].concat()));
    seeds
}
