//! The seeds of the fuzz targets that are about streaming, as they are and a little changed: a short fuzzing in every test run.

use std::fs;
use std::path::Path;

use pgwal_testkit::fuzz::changed;
use pgwal_testkit::read::random_sizes;

#[path = "../../../fuzz/src/stream.rs"]
mod stream;

fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let files = fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    let mut seeds: Vec<_> =
        files.map(|file| file.unwrap().path()).map(|path| (path.display().to_string(), fs::read(path).unwrap())).collect();
    assert!(!seeds.is_empty(), "no seeds in {}", dir.display());
    seeds.sort();
    seeds
}

#[test]
fn seeds_changed_or_not_find_nothing() {
    for (target, body, rounds) in [("message", stream::message as fn(&[u8]), 500), ("receiver", stream::receiver, 40)] {
        for (number, (name, seed)) in (0..).zip(seeds(target)) {
            body(&seed);
            let mut random = random_sizes(number, 1 << 20);
            for round in 0..rounds {
                let changed = changed(&seed, &mut random);
                if let Err(panic) = std::panic::catch_unwind(|| body(&changed)) {
                    eprintln!("{name}, change {round}");
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }
}
