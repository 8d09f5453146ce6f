//! Bodies of the targets that are about streaming replication; the tests of pgwal-stream run them over the seeds.

use std::path::Path;

use pgwal::types::TimestampTz;
use pgwal::{Lsn, TimelineId, WalFormat};
use pgwal_stream::backup::Recovery;
use pgwal_stream::backup::manifest::Manifest;
use pgwal_stream::compress::Compression;
use pgwal_stream::conninfo::{Config, Environment, Settings};
use pgwal_stream::message::{FromBackup, FromWalReceiver, FromWalSender, XLogData};
use pgwal_stream::receiver::{OnDamage, Receiver, Start, TakeError};
use pgwal_stream::segments::{Newest, Segments};
use sha2::Digest;

/// A message of each kind, a connection string, a manifest: what is read is written back, what is refused says why.
///
/// Input: what it is; then its bytes.
pub fn message(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let mut out = Vec::new();
    match kind % 5 {
        0 => match FromWalSender::read(bytes) {
            // Any byte but 0 means yes, and 1 is written.
            Ok(FromWalSender::Keepalive(_)) => {}
            Ok(message) => {
                message.write(&mut out);
                assert!(out == bytes, "{message:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        1 => match FromWalReceiver::read(bytes) {
            Ok(FromWalReceiver::Status(_)) => {}
            Ok(message) => {
                message.write(&mut out);
                assert!(out == bytes, "{message:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        2 => match FromBackup::read(bytes) {
            Ok(message) => {
                message.write(&mut out);
                assert!(out == bytes, "{message:?}");
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        },
        3 => conninfo(bytes),
        _ => manifest(bytes),
    }
}

/// What a standby is told leads where the string led.
fn conninfo(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let settings = match Settings::parse(text) {
        Ok(settings) => settings,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let env = Environment::new("me", Path::new("/nonexistent"));
    let Ok(config) = Config::new(settings.clone(), &env) else { return };
    let recovery = Recovery::new(settings.clone(), &config, None);
    let again = Settings::parse(&recovery.conninfo).expect("what is written is read");
    for (keyword, value) in again.iter().filter(|(keyword, _)| *keyword != "user") {
        assert_eq!(settings.get(keyword), Some(value), "{}", recovery.conninfo);
    }
}

/// With the right checksum behind it, so that what is in it is looked at.
fn manifest(bytes: &[u8]) {
    let checksum: String = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    let sealed = [bytes, format!("\"Manifest-Checksum\": \"{checksum}\"}}\n").as_bytes()].concat();
    for text in [bytes, &sealed] {
        if let Err(error) = Manifest::parse(text) {
            assert!(!error.to_string().is_empty());
        }
    }
}

/// WAL that comes in pieces, with anything wrong with it: nothing is acknowledged that is not on disk and whole, and the files have the
/// bytes that came.
///
/// Input: major, whether damage is written, size of pieces; then WAL from the start of a segment on.
pub fn receiver(data: &[u8]) {
    let Some((&[major, warn, piece], wal)) = data.split_first_chunk::<3>() else { return };
    let fmt = WalFormat { segment_size: 1 << 20, ..WalFormat::new(10 + major % 10) };
    let start = Lsn(0x100_0000);
    let Ok(dir) = tempfile::tempdir() else { return };
    let segments = Segments::new(dir.path(), fmt.segment_size, Compression::None);
    let on_damage = if warn % 2 == 0 { OnDamage::Stop } else { OnDamage::Warn };
    let mut receiver = Receiver::new(segments, fmt, Start { timeline: TimelineId(1), lsn: start, previous: None }, on_damage);
    for data in wal.chunks(usize::from(piece) * 97 + 1) {
        let (at, before) = (receiver.written(), receiver.flushed());
        let result = receiver.take(&XLogData { start: at, server_end: at, time: TimestampTz(0), data });
        if piece % 3 == 0 {
            receiver.sync().expect("there is room");
        }
        assert!(before <= receiver.flushed() && receiver.flushed() <= receiver.written());
        match result {
            Ok(()) => assert_eq!(receiver.written(), Lsn(at.0 + data.len() as u64)),
            Err(TakeError::Damage(error)) => {
                assert!(on_damage == OnDamage::Stop && !error.to_string().is_empty());
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let (written, flushed) = (receiver.written(), receiver.flushed());
    receiver.close().expect("there is room");
    let mut files: Vec<_> = std::fs::read_dir(dir.path()).expect("it is there").map(|entry| entry.expect("it is there").path()).collect();
    files.sort();
    let found: Vec<u8> = files.iter().flat_map(|path| std::fs::read(path).expect("it is there")).collect();
    let len = usize::try_from(written - start).expect("it is in memory");
    assert!(found.get(..len) == wal.get(..len), "the files have other bytes");
    // Where the next one goes on is not behind what came; and not before what was acknowledged, but for XLOG_SWITCH, which
    // ends the segment and is written again.
    if let Ok(Some(newest)) = Newest::find(dir.path(), fmt.segment_size) {
        assert!(newest.next <= written, "{newest:?}, {written}");
        // XLOG, XLOG_SWITCH; xl_info and xl_rmid are bytes 16 and 17.
        let is_switch =
            |lsn: Lsn| wal.get(usize::try_from(lsn - start).expect("it came") + 16..).is_some_and(|at| at.starts_with(&[0x40, 0]));
        assert!(flushed <= newest.next || on_damage == OnDamage::Warn || is_switch(newest.next), "{newest:?}, {flushed}");
    }
}
