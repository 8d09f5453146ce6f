//! Checking: good WAL gives no findings, and every damage is found.

use std::ops::ControlFlow;
use std::path::Path;

use pgwal::check::{Event, Finding, Options, Summary, check};
use pgwal::source::Wal;
use pgwal_testkit::fixtures;

const ALL: Options = Options { from: None, to: None, system_identifier: None, threads: 1 };

fn run(path: &Path, options: Options) -> (Vec<Finding>, Summary) {
    let wal = Wal::open_all(&[path], None).unwrap();
    let mut findings = Vec::new();
    let summary = check(&wal, options, |event| {
        if let Event::Finding(finding) = event {
            findings.push(finding);
        }
        ControlFlow::Continue(())
    });
    (findings, summary)
}

#[test]
fn good_wal_gives_no_findings() {
    let mut records = 0;
    for fixture in fixtures::with_odd() {
        let (findings, summary) = run(&fixture.dir, ALL);
        let name = fixture.dir.display();
        for finding in findings.iter().take(5) {
            println!("{name}: {finding}");
        }
        println!("{name}: {summary:?}");
        records += summary.records;
        assert!(findings.is_empty(), "{name}");
        let (_, parallel) = run(&fixture.dir, Options { threads: 3, ..ALL });
        assert_eq!(parallel, summary, "{name}");
    }
    println!("{records} records");
}
