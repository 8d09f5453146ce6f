//! The seeds of the fuzz targets, as they are and a little changed: a short fuzzing in every test run.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use pgwal::rmgr::RMGRS;
use pgwal::scan::Options;
use pgwal::{Lsn, RawRecord, WalFormat};
use pgwal_testkit::fuzz::{FILE_NAMES, TARGETS, changed, payload_record};
use pgwal_testkit::read::{random_sizes, scanned};

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut seeds: Vec<_> = files
        .map(|file| {
            let file = file.unwrap();
            (file.file_name().to_string_lossy().into_owned(), fs::read(file.path()).unwrap())
        })
        .collect();
    assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
    seeds.sort();
    seeds
}

/// Runs `body` over `input` and says which seed it was where it panics.
fn run(body: fn(&[u8]), input: &[u8], what: &str) {
    if let Err(panic) = std::panic::catch_unwind(|| body(input)) {
        eprintln!("{what}: {}", input.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        std::panic::resume_unwind(panic);
    }
}

/// A seed that is refused, or of which there is no record type, would teach the fuzzer nothing.
#[test]
fn payload_seeds_are_good_payloads() {
    let mut types = BTreeSet::new();
    for (name, seed) in seeds("payload") {
        let bytes = payload_record(&seed).unwrap();
        let fmt = WalFormat::new(10 + seed[0]);
        let raw = RawRecord::from_bytes(&bytes, Lsn(0x100_0028), fmt).unwrap();
        let record = raw.decode().unwrap();
        if name.starts_with("found-") {
            continue;
        }
        assert!(matches!(record.payload(), Ok(Some(_))), "{name}: {:?}", record.payload());
        types.insert((record.rmid(), record.opcode_name().unwrap_or_else(|| panic!("{name}"))));
    }
    let all: usize = RMGRS.iter().map(|rmgr| rmgr.opcodes.iter().map(|row| row.name).collect::<BTreeSet<_>>().len()).sum();
    println!("{} of {all} record types have a seed", types.len());
    assert!(types.len() * 10 > all * 9, "{} of {all}", types.len());
}

#[test]
fn source_seeds_have_records() {
    for (name, seed) in seeds("source") {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAMES[usize::from(seed[0])]);
        fs::write(&path, &seed[1..]).unwrap();
        let inputs = pgwal::source::Wal::open(&[path], None).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (records, summary) = scanned(&inputs, Options { start: None, end: None, threads: 1 });
        let readable = !["zeroes", "zstd-twice", "elsewhere"].contains(&&name[..]);
        assert!(name.starts_with("found-") || records.is_empty() != readable, "{name}: {summary:?}");
    }
}

#[test]
fn seeds_find_nothing() {
    for (target, body) in TARGETS {
        for (name, seed) in seeds(target) {
            run(*body, &seed, &format!("{target}/{name}"));
        }
    }
}

#[test]
fn seeds_with_changed_bytes_find_nothing() {
    for (target, body) in TARGETS {
        for (number, (name, seed)) in (0..).zip(seeds(target)) {
            let mut random = random_sizes(number, 1 << 20);
            for round in 0..if seed.len() < 1000 { 40 } else { 4 } {
                let changed = changed(&seed, &mut random);
                run(*body, &changed, &format!("{target}/{name}, change {round}"));
            }
        }
    }
}
