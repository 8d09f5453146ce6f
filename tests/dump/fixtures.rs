//! Every fixture: the bytes that the real pg_waldump printed, with any number of threads.

use std::path::Path;

use pgwal_testkit::fixtures::{self, Fixture};
use serde_json::Value;

use crate::{Ran, dump, run, same_bytes};

/// One run of the real pg_waldump, as `runs.json` has it.
pub struct Run {
    pub args: Vec<String>,
    pub stdout: Vec<u8>,
    pub status: i64,
    pub stderr: String,
}

/// The runs of a fixture.
pub fn runs(fixture: &Fixture) -> Vec<Run> {
    let json = fixture.read("runs.json").unwrap_or_else(|| panic!("{}: no runs.json", fixture.dir.display()));
    let list: Vec<Value> = serde_json::from_slice(&json).unwrap();
    let runs = list.iter().map(|run| Run {
        args: run["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned()).collect(),
        stdout: fixture.read(run["stdout"].as_str().unwrap()).unwrap(),
        status: run["status"].as_i64().unwrap(),
        stderr: run["stderr"].as_str().unwrap().to_owned(),
    });
    runs.collect()
}

/// Runs with 1, 2, 3 and 8 threads, expects the same each time, and returns it.
#[track_caller]
pub fn with_any_threads<S: AsRef<std::ffi::OsStr>>(dir: &Path, args: &[S]) -> Ran {
    let with = |threads: &str| run(dump(dir, args).args(["--threads", threads]));
    let one = with("1");
    for threads in ["2", "3", "8"] {
        let many = with(threads);
        same_bytes(&format!("{threads} threads"), &many.stdout, &one.stdout);
        assert_eq!((many.status, &many.stderr), (one.status, &one.stderr), "{threads} threads");
    }
    one
}

#[test]
fn equal_bytes() {
    let mut compared = 0;
    for fixture in fixtures::with_odd() {
        let unpacked = fixture.unpacked();
        for real in runs(&fixture) {
            let what = format!("v{}/{} {}", fixture.major, fixture.scenario, real.args.join(" "));
            let ours = with_any_threads(unpacked.path(), &real.args);
            same_bytes(&what, &ours.stdout, &real.stdout);
            // The real program calls the end of the WAL an error; here it is a note. No fixture is damaged.
            assert_eq!(ours.status, 0, "{what}: {}", ours.stderr);
            if real.status == 0 {
                assert_eq!(ours.stderr, "", "{what}");
            } else {
                assert!(real.stderr.contains("invalid record length"), "{what}: {}", real.stderr);
                assert!(ours.stderr.starts_with("pgwal: the WAL ends at "), "{what}: {}", ours.stderr);
                assert!(ours.stderr.ends_with(": zeroes follow\n"), "{what}: {}", ours.stderr);
            }
            compared += 1;
        }
    }
    assert!(compared >= 150, "only {compared} runs");
}
