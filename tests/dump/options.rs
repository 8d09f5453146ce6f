//! Options, against the real pg_waldump where it is installed, its stored cases, and a filter over its plain text.

use std::fs;
use std::path::Path;
use std::process::Command;

use pgwal_testkit::fixtures::{self, Fixture};
use pgwal_testkit::server::Postgres;
use serde_json::Value;

use crate::fixtures::{runs, with_any_threads};
use crate::{Ran, dump, run, same_bytes};

/// Options that pg_waldump 15 and `pgwal dump` both have; `LSN` stands for one inside the fixture.
const OPTIONS: &[&str] = &[
    "-b",
    "--bkp-details -n 40",
    "-z",
    "--stats",
    "--stats=rmgr",
    "--stats=record",
    "-q",
    "--quiet --stats",
    "-n 7",
    "--limit=7 -b",
    "-n 0",
    "-n 50 --stats=record",
    "-r Heap",
    "-r heap -r Btree -b",
    "--rmgr=Transaction --stats=record",
    "-r Gin -z",
    "-x 1",
    "-F main",
    "-F vm -b",
    "--fork=fsm",
    "-F init",
    "-w",
    "--fullpage -b --stats=record",
    "-w -F main -r Heap -n 9",
    "-t 1",
    "-n 3 -n 5",
    "-z --stats=record",
    "-s LSN",
    "--start=LSN -n 5 -b",
    "-s LSN --stats",
    "-q -s LSN",
    "-e LSN",
    "--end=LSN -b",
    "-e LSN -z",
];

/// The fixtures of one major that have one timeline, and the segments of each.
fn single_timelines(major: u8) -> impl Iterator<Item = (Fixture, Vec<String>)> {
    let all = fixtures::all().into_iter().filter(move |fixture| fixture.major == major && fixture.scenario != "timeline2");
    all.map(|fixture| {
        let names = fixture.segments();
        let names = names.iter().map(|path| path.file_name().unwrap().to_string_lossy().trim_end_matches(".zst").to_owned());
        let names = names.collect();
        (fixture, names)
    })
}

#[test]
fn as_the_installed_pg_waldump() {
    let Some(real) = Postgres::find_or_skip(Some(15), "options::as_the_installed_pg_waldump") else { return };
    let compare = |dir: &Path, args: &[String]| {
        let theirs: Ran = {
            let mut command = Command::new(real.program("pg_waldump"));
            run(command.args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA"))
        };
        let ours = with_any_threads(dir, args);
        let what = args.join(" ");
        same_bytes(&what, &ours.stdout, &theirs.stdout);
        let at_the_end = theirs.stderr.contains("invalid record length at");
        assert!(theirs.status == 0 || at_the_end, "{what}: {}", theirs.stderr);
        assert_eq!((ours.status, ours.stderr.is_empty()), (0, !at_the_end), "{what}: {}", ours.stderr);
    };
    for (fixture, names) in single_timelines(15) {
        let dir = fixture.unpacked();
        let plain = &runs(&fixture)[0].stdout;
        let lines: Vec<String> = String::from_utf8_lossy(plain).lines().map(str::to_owned).collect();
        // Inside a record in the middle of the first segment, so that something is skipped.
        let lsn = |line: &str| u32::from_str_radix(&line.split("lsn: 0/").nth(1).unwrap()[..8], 16).unwrap();
        let in_first = lines.iter().filter(|line| lsn(line) >> 20 == lsn(&lines[0]) >> 20).count();
        let inside = format!("0/{:X}", lsn(&lines[in_first / 2]) + 1);
        for options in OPTIONS {
            let mut args: Vec<String> = options.replace("LSN", &inside).split(' ').map(str::to_owned).collect();
            args.push(names[0].clone());
            if names.len() > 1 && !options.contains("LSN") {
                args.push(names[names.len() - 1].clone());
            }
            compare(dir.path(), &args);
        }
        // The first relation that a line speaks of.
        let rel = lines.iter().find_map(|line| line.split("blkref #0: rel ").nth(1)).unwrap().split(' ').next().unwrap().to_owned();
        for more in ["", "-B 0", "-B 0 -F main", "--block=1 -b"] {
            let mut args = vec!["-R".to_owned(), rel.clone()];
            args.extend(more.split_whitespace().map(str::to_owned));
            args.push(names[0].clone());
            compare(dir.path(), &args);
        }
    }
}

/// A record's line, as far as filters look at it.
struct Line<'t> {
    text: &'t str,
    rmgr: &'t str,
    xid: &'t str,
    /// Relation, fork, block, whether there is an image.
    blocks: Vec<(&'t str, &'t str, &'t str, bool)>,
}

/// Takes apart what pg_waldump printed.
fn lines(text: &str) -> Vec<Line<'_>> {
    let parse = |text| {
        let field = |name: &str| -> &str { str::split(text, name).nth(1).unwrap().split(',').next().unwrap().trim() };
        let blocks = text.split(", blkref #").skip(1).map(|block| {
            let words: Vec<&str> = block.split(' ').collect();
            let after = |word| words.iter().position(|&w| w == word).map(|at| words[at + 1]);
            (after("rel").unwrap(), after("fork").unwrap_or("main"), after("blk").unwrap(), words.contains(&"FPW"))
        });
        Line { text, rmgr: text[6..18].trim(), xid: field("tx: "), blocks: blocks.collect() }
    };
    text.lines().map(parse).collect()
}

#[test]
fn filters_on_every_major() {
    for fixture in fixtures::with_odd() {
        let real = &runs(&fixture)[0];
        let text = String::from_utf8_lossy(&real.stdout);
        let lines = lines(&text);
        let dir = fixture.unpacked();
        let check = |options: &[&str], keep: &dyn Fn(&Line<'_>) -> bool| {
            let expected: String = lines.iter().filter(|line| keep(line)).flat_map(|line| [line.text, "\n"]).collect();
            let args: Vec<&str> = options.iter().copied().chain(real.args.iter().map(String::as_str)).collect();
            let what = format!("v{}/{} {}", fixture.major, fixture.scenario, args.join(" "));
            let ours = run(&mut dump(dir.path(), &args));
            same_bytes(&what, &ours.stdout, expected.as_bytes());
            assert_eq!(ours.status, 0, "{what}: {}", ours.stderr);
            !expected.is_empty()
        };
        let of_block: Vec<_> = lines.iter().filter_map(|line| line.blocks.first()).collect();
        let &&(rel, fork, block, _) = of_block.get(of_block.len() / 2).expect("a block reference");
        let xid = lines.iter().map(|line| line.xid).find(|&xid| xid != "0").expect("a transaction");
        let mut shown = [false; 8];
        shown[0] = check(&["--rmgr", "Heap"], &|line| line.rmgr == "Heap");
        shown[1] = check(&["-r", "standby", "-r", "XLOG"], &|line| ["Standby", "XLOG"].contains(&line.rmgr));
        shown[2] = check(&["--xid", xid], &|line| line.xid == xid);
        shown[3] = check(&["--relation", rel], &|line| line.blocks.iter().any(|b| b.0 == rel));
        shown[4] = check(&["-R", rel, "-B", block, "-F", fork], &|line| line.blocks.iter().any(|b| (b.0, b.1, b.2) == (rel, fork, block)));
        shown[5] = check(&["--fork", fork], &|line| line.blocks.iter().any(|b| b.1 == fork));
        shown[6] = check(&["-q"], &|_| false);
        shown[7] = check(&["--fullpage"], &|line| line.blocks.iter().any(|b| b.3));
        assert_eq!(shown[2..6], [true; 4], "v{}/{}: nothing to see", fixture.major, fixture.scenario);
    }
}

/// Paths of the files below `folder` of `dir`, in order.
fn files_below(dir: &Path, folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for file in fs::read_dir(dir.join(folder)).unwrap() {
        let file = file.unwrap();
        let path = format!("{folder}/{}", file.file_name().to_str().unwrap());
        if file.file_type().unwrap().is_dir() {
            found.extend(files_below(dir, &path));
        } else {
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn as_the_stored_cases() {
    let (mut compared, mut refused, mut files) = (0, 0, 0);
    for major in 10..=19 {
        let Ok(json) = fs::read(fixtures::root().join(format!("v{major}/cases/cases.json"))) else { continue };
        let cases: Vec<Value> = serde_json::from_slice(&json).unwrap();
        for (fixture, _) in single_timelines(major) {
            let dir = fixture.unpacked();
            for case in cases.iter().filter(|case| case["dir"] == fixture.scenario.as_str()) {
                let args: Vec<&str> = case["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap()).collect();
                let special = ["make", "interrupt", "env"].iter().any(|key| case.get(key).is_some());
                let about = args.iter().any(|arg| ["--help", "--version", "-V", "-?"].contains(arg));
                // What is given again adds up here; for pg_waldump the last one counts, up to 14 also of resource managers.
                let again = |option: &str| args.iter().filter(|&&arg| arg == option).count() > 1;
                let added_up = again("-x") || again("-R") || major < 15 && again("-r");
                // Messages are our own, and so are their reasons.
                if added_up || special || about || case["status"] != 0 {
                    continue;
                }
                let out = dir.path().join("out");
                if out.exists() {
                    fs::remove_dir_all(&out).unwrap();
                }
                let ours = run(&mut dump(dir.path(), &args));
                let what = format!("v{major} {} {}", case["name"], args.join(" "));
                if ours.status == 2 {
                    // Numbers with something behind them and the like: pg_waldump reads them as far as it understands them.
                    assert!(ours.stderr.starts_with("error: ") && ours.stdout.is_empty(), "{what}: {}", ours.stderr);
                    refused += 1;
                    continue;
                }
                same_bytes(&what, &ours.stdout, case["stdout"].as_str().unwrap().as_bytes());
                assert_eq!(ours.status, 0, "{what}: {}", ours.stderr);
                if let Some(expected) = case.get("files").and_then(Value::as_object) {
                    let mut expected: Vec<&str> = expected.keys().map(String::as_str).collect();
                    expected.sort();
                    assert_eq!(files_below(dir.path(), "out"), expected, "{what}");
                    files += 1;
                }
                compared += 1;
            }
        }
    }
    assert!(compared >= 100 && files >= 1 && refused * 4 < compared, "{compared} compared, {refused} refused, {files} with files");
}

#[test]
fn page_images_are_saved() {
    // One file for each image that the text speaks of.
    let fixture = fixtures::all().into_iter().find(|f| f.major == 15 && f.scenario == "workload").unwrap();
    let dir = fixture.unpacked();
    let real = &runs(&fixture)[0];
    let ours = run(dump(dir.path(), ["--save-fullpage", "new/pages", "--threads", "8"]).args(&real.args));
    assert_eq!((ours.status, ours.stderr.as_str()), (0, ""));
    same_bytes("the text besides", &ours.stdout, &real.stdout);
    let text = String::from_utf8_lossy(&real.stdout);
    let mut expected = Vec::new();
    for line in lines(&text) {
        let lsn = line.text.split("lsn: ").nth(1).unwrap().split(',').next().unwrap();
        let (high, low) = lsn.split_once('/').unwrap();
        for (rel, fork, block, _) in line.blocks.iter().filter(|block| block.3) {
            expected.push(format!("00000001-{high:0>8}-{low}.{}.{block}_{fork}", rel.replace('/', ".")));
        }
    }
    let mut found: Vec<String> = Vec::new();
    for file in fs::read_dir(dir.path().join("new/pages")).unwrap() {
        let file = file.unwrap();
        assert_eq!(file.metadata().unwrap().len(), 8192, "{:?}", file.path());
        found.push(file.file_name().into_string().unwrap());
    }
    found.sort();
    expected.sort();
    expected.dedup();
    assert!(!found.is_empty());
    assert_eq!(found, expected);
    let again = run(dump(dir.path(), ["--save-fullpage", "new/pages"]).args(&real.args));
    assert_eq!((again.status, again.stderr.as_str()), (1, "pgwal: directory \"new/pages\" exists but is not empty\n"));
}
