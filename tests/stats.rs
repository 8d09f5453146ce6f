//! `pgwal stats`, and the wider filters of `pgwal dump`.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use pgwal::types::{Oid, RelFileLocator, TimestampTz};
use pgwal::{RmgrId, WalFormat};
use pgwal_testkit::fixtures;
use pgwal_testkit::server::{Postgres, Server};
use pgwal_testkit::wal::{BlockBuilder, ImageBuilder, MIB, RecordBuilder, Wal};
use postgres::{Client, NoTls};
use serde_json::Value;
use tempfile::TempDir;

/// What a run came to.
#[derive(Debug)]
struct Ran {
    status: i32,
    stdout: String,
    stderr: String,
}

impl Ran {
    /// The rows of a table, of output in JSON.
    #[track_caller]
    fn rows(&self, table: &str) -> Vec<Value> {
        let rows = self.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        rows.filter(|row| row["table"] == table).collect()
    }
}

/// Runs `pgwal` in `dir`, with what `args` says, at its blanks.
#[track_caller]
fn pgwal(dir: &Path, args: &str) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pgwal"));
    let args: Vec<String> = args.split(' ').filter(|arg| !arg.is_empty()).map(|arg| arg.replace('_', " ")).collect();
    command.args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C").env_remove("PGDATA").stdin(Stdio::null());
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}

fn rel(db: u32, rel: u32) -> RelFileLocator {
    RelFileLocator { spc: Oid(1663), db: Oid(db), rel: Oid(rel) }
}

/// 2026-11-23 05:00:00 UTC.
fn five_o_clock() -> i64 {
    pgwal::text::Zone::utc().parse("2026-11-23 05:00:00").unwrap().0
}

fn commit(xid: u32, time: i64) -> RecordBuilder {
    RecordBuilder::new(RmgrId::XACT, 0x00).xid(xid).main(&TimestampTz(time).0.to_le_bytes())
}

/// Ten transactions, a minute apart from five o'clock on: each changes its own relation, the odd ones in database 6, and every
/// third has a page image.
fn ten_minutes() -> Wal {
    let mut wal = Wal::new(WalFormat { segment_size: MIB, ..WalFormat::new(17) });
    for n in 0..10 {
        let rel = rel(5 + n % 2, 16384 + n);
        let mut block = BlockBuilder::new(0, rel, n);
        if n % 3 == 0 {
            block = block.image(ImageBuilder::empty_page(8192));
        }
        wal.record(&RecordBuilder::new(RmgrId(200), 0x00).xid(700 + n).block(block).main(&vec![7; 100 * (n as usize + 1)]));
        wal.record(&commit(700 + n, five_o_clock() + i64::from(n) * 60_000_000));
    }
    wal
}

fn folder(wal: &Wal) -> TempDir {
    let dir = TempDir::new().unwrap();
    for (name, bytes) in wal.segments() {
        fs::write(dir.path().join(name.to_string()), bytes).unwrap();
    }
    dir
}

const NAMES: &str = r#"{"pgwal_names": 1, "databases": {"5": "shop", "6": "Old Shop"}, "relations": [
    {"spc":1663,"db":5,"rel":16384,"schema":"public","name":"orders"},
    {"spc":1663,"db":6,"rel":16385,"schema":"public","name":"orders"},
    {"spc":1663,"db":5,"rel":16386,"schema":"sales","name":"Lines"}]}"#;

#[test]
fn the_page() {
    let dir = folder(&ten_minutes());
    let ran = pgwal(dir.path(), "stats --top 2");
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    assert!(ran.stderr.starts_with("pgwal: the WAL ends at 0/") && ran.stderr.ends_with(": zeroes follow\n"), "{}", ran.stderr);
    for expected in [
        "WAL of PostgreSQL 17, timeline 1, 0/00100028 to 0/0010",
        "Transactions ended from 2026-11-23 05:00:00 UTC to 2026-11-23 05:09:00 UTC, in 9.0 min\n",
        "20 records with ",
        "\nRecord types\n",
        "  custom200/UNKNOWN (0)",
        "  Transaction/COMMIT ",
        "\nRelations, 2 of 10\n",
        "  (8 others)",
        "  (no relation)",
        "\nTransactions, 2 of 10; 10 commits, 0 aborts\n",
        "  709          committed  2026-11-23 05:09:00 UTC  0/0010",
    ] {
        assert!(ran.stdout.contains(expected), "{expected:?} is not in\n{}", ran.stdout);
    }
    assert!(ran.stdout.lines().all(|line| !line.ends_with(' ')), "{}", ran.stdout);
    let json = pgwal(dir.path(), "stats --format json");
    let wal = &json.rows("wal")[0];
    assert_eq!((&wal["count"], &wal["commits"], &wal["start"]), (&20.into(), &10.into(), &"0/00100028".into()));
    assert_eq!((&wal["first_end"], &wal["fpi_count"]), (&"2026-11-23T05:00:00.000000Z".into(), &4.into()));
    for table in ["record", "relation", "transaction"] {
        let rows = json.rows(table);
        assert_eq!(rows.last().unwrap()["row"], "total", "{table}");
        let sum: u64 = rows.iter().filter(|row| row["row"] != "total").map(|row| row["combined_size"].as_u64().unwrap()).sum();
        assert_eq!(sum, wal["combined_size"], "{table}");
    }
}

#[test]
fn tables_of_fixtures_add_up() {
    for fixture in fixtures::with_odd() {
        let what = fixture.dir.display().to_string();
        let by = "rmgr,record,relation,database,transaction,time,segment,checkpoint,image";
        let ran = pgwal(&fixture.dir, &format!("stats --format json --by {by}"));
        assert_eq!(ran.status, 0, "{what}: {}", ran.stderr);
        let wal = ran.rows("wal").remove(0);
        for table in ["rmgr", "record", "relation", "database", "transaction", "time", "segment"] {
            let rows = ran.rows(table);
            let rows: Vec<&Value> = rows.iter().filter(|row| row["row"] != "total").collect();
            for field in ["count", "record_size", "fpi_count", "fpi_size", "combined_size"] {
                let sum: u64 = rows.iter().map(|row| row[field].as_u64().unwrap()).sum();
                assert_eq!(sum, wal[field], "{what}: {table}.{field}");
            }
        }
        assert_eq!(ran.rows("checkpoint").len() as u64, wal["checkpoints"].as_u64().unwrap(), "{what}");
    }
}

#[test]
fn csv_has_one_table() {
    let dir = folder(&ten_minutes());
    let ran = pgwal(dir.path(), "stats --by relation --top 1 --format csv");
    let lines: Vec<&str> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "row,relation,spc,db,rel,count,record_size,fpi_count,fpi_size,combined_size");
    assert!(lines[1].starts_with("row,1663/5/16384,1663,5,16384,1,") || lines[1].starts_with("row,1663/"), "{}", lines[1]);
    assert!(lines[2].starts_with("others,(9 others),,,,9,"), "{}", lines[2]);
    assert_eq!(lines.len(), 5);
    for args in ["stats --format csv", "stats --format csv --by relation --by database"] {
        let ran = pgwal(dir.path(), args);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{args}");
        assert!(ran.stderr.starts_with("error: --format csv shows one table"), "{}", ran.stderr);
    }
}

#[test]
fn times() {
    let dir = folder(&ten_minutes());
    let json = |args: &str| pgwal(dir.path(), &format!("stats --by time --format json {args}"));
    let minutes = |ran: &Ran| -> Vec<(String, u64)> {
        let rows = ran.rows("time");
        let rows = rows.iter().filter(|row| row["row"] == "row");
        rows.map(|row| (row["time"].as_str().unwrap()[11..16].to_owned(), row["commits"].as_u64().unwrap())).collect()
    };
    let ran = json("--interval 5m");
    assert_eq!(minutes(&ran), [("05:00".to_owned(), 5), ("05:05".to_owned(), 5)], "{}", ran.stdout);
    assert_eq!(minutes(&json("")).len(), 10);
    for (args, first, last) in [
        ("--from 2026-11-23_05:03 --to 2026-11-23_05:06", 3, 6),
        ("--from 2026-11-23_05:02:30 --to 2026-11-23_05:06:59+00", 3, 6),
        ("--from 2026-11-23_06:03+01", 3, 9),
        ("--to 2026-11-23T05:00:00Z", 0, 0),
        ("--from 2025-01-01 --to 2027-01-01", 0, 9),
        ("--from 0/100028 --to 2026-11-23_05:04:30", 0, 4),
    ] {
        let ran = json(args);
        let wal = &ran.rows("wal")[0];
        let expected = |n: u32| format!("2026-11-23T05:0{n}:00.000000Z");
        assert_eq!((&wal["first_end"], &wal["last_end"]), (&expected(first).into(), &expected(last).into()), "{args}");
        // Each with the record before it.
        assert_eq!(wal["count"], 2 * (last - first + 1), "{args}");
    }
    for (args, says) in [
        ("--from 2026-11-24", "no transaction ends at or after 2026-11-24T00:00:00.000000Z; the last one looked at is of 2026-11-23T05:09"),
        ("--to 2026-11-22", "no transaction ends up to 2026-11-22T00:00:00.000000Z; the last one looked at is of 2026-11-23T05:00"),
        ("--from 2026-11-23_05:03:01 --to 2026-11-23_05:03:59", "no transaction ends from 2026-11-23T05:03:01.000000Z to "),
    ] {
        let ran = json(args);
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{args}");
        assert!(ran.stderr.starts_with(&format!("pgwal: {says}")), "{args}: {}", ran.stderr);
    }
}

#[test]
fn names_in_the_place_of_numbers() {
    let dir = folder(&ten_minutes());
    fs::write(dir.path().join("names.json"), NAMES).unwrap();
    let ran = pgwal(dir.path(), "stats --by relation,database --format json --names names.json");
    let names: Vec<Value> = ran.rows("relation").into_iter().map(|row| row["relation"].clone()).collect();
    for expected in ["shop.public.orders", "\"Old Shop\".public.orders", "shop.sales.\"Lines\"", "1663/6/16387", "(no relation)", "total"] {
        assert!(names.contains(&expected.into()), "{expected}: {names:?}");
    }
    let names: Vec<Value> = ran.rows("database").into_iter().map(|row| row["database"].clone()).collect();
    assert_eq!(names, ["Old Shop", "shop", "(no relation)", "total"]);
    assert!(!ran.stderr.contains("the names are those"), "{}", ran.stderr);
    let foreign = NAMES.replacen('{', r#"{"system_identifier": "42", "#, 1);
    fs::write(dir.path().join("foreign.json"), foreign).unwrap();
    for command in ["stats . --names foreign.json", "dump . --names foreign.json --quiet"] {
        let ran = pgwal(dir.path(), command);
        let says = "pgwal: foreign.json: the names are those of system 42, but the WAL is that of system 7296";
        assert!(ran.stderr.starts_with(says), "{command}: {}", ran.stderr);
    }
    let ran = pgwal(dir.path(), "stats . --dbname host=/nowhere");
    assert_eq!((ran.status, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.starts_with("pgwal: connection to server on socket \"/nowhere/.s.PGSQL.5432\" failed: "), "{}", ran.stderr);
    for (file, says) in [("missing.json", "pgwal: missing.json: does not exist\n"), (".", "pgwal: .: ")] {
        let ran = pgwal(dir.path(), &format!("stats --names {file}"));
        assert_eq!((ran.status, ran.stdout.as_str()), (1, ""), "{file}");
        assert!(ran.stderr.starts_with(says), "{}", ran.stderr);
    }
}

/// What was read before the damage is shown.
#[test]
fn damage_and_wrong_inputs() {
    let mut wal = ten_minutes();
    let lsn = wal.records()[10].lsn;
    wal.patch_record(lsn, 60, &[0xA4]);
    let dir = folder(&wal);
    let ran = pgwal(dir.path(), "stats --by transaction --format json");
    assert_eq!(ran.status, 1);
    assert!(ran.stderr.starts_with("pgwal: 000000010000000000000001:0x") && ran.stderr.contains("xl_crc"), "{}", ran.stderr);
    assert_eq!(ran.rows("wal")[0]["count"], 10);
    // A search for times that meets it says so.
    let ran = pgwal(dir.path(), "stats --from 2026-11-24");
    assert!(ran.status == 1 && ran.stderr.contains("no transaction ends") && ran.stderr.contains("xl_crc"), "{}", ran.stderr);
    let ran = pgwal(dir.path(), "stats nowhere");
    assert_eq!((ran.status, ran.stderr.as_str()), (1, "pgwal: nowhere: does not exist\n"));
    // A commit that does not parse costs that record alone.
    let mut wal = ten_minutes();
    wal.record(&RecordBuilder::new(RmgrId::XACT, 0x00).xid(900).main(&[1, 2, 3]));
    wal.record(&commit(901, five_o_clock() + 3_600_000_000));
    let ran = pgwal(folder(&wal).path(), "stats --by transaction --format json");
    assert!(ran.status == 1 && ran.stderr.contains("xl_xact_commit"), "{}", ran.stderr);
    assert_eq!((&ran.rows("wal")[0]["count"], &ran.rows("wal")[0]["commits"]), (&22.into(), &11.into()));
}

#[test]
fn several_inputs() {
    let fixture = fixtures::all().into_iter().find(|fixture| (fixture.major, &fixture.scenario[..]) == (17, "workload")).unwrap();
    let dir = fixture.unpacked();
    let records = |args: &str| {
        let ran = pgwal(dir.path(), &format!("stats --by segment --format json {args}"));
        assert_eq!(ran.status, 0, "{args}: {}", ran.stderr);
        (ran.rows("wal")[0]["count"].as_u64().unwrap(), ran.rows("segment").len() - 1, ran.stderr)
    };
    let whole = records(".");
    let names: Vec<String> = fs::read_dir(dir.path())
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.parse::<pgwal::SegmentName>().is_ok())
        .collect();
    // In any order. Segments that were named may go on, so that there is no end to speak of.
    let all = records(&names.join(" "));
    assert_eq!((all.0, all.1, all.2.as_str()), (whole.0, names.len(), ""));
    assert!(whole.2.contains("the WAL ends at"), "{}", whole.2);
    let first = names.iter().min().unwrap();
    let one = records(first);
    assert!(one.0 < whole.0 && one.1 == 1 && one.2.is_empty());
}

#[test]
fn wrong_options() {
    let dir = folder(&ten_minutes());
    for (args, says) in [
        ("stats --by size", "error: invalid value 'size' for '--by <TABLE>'"),
        ("stats --top 0", "error: invalid value '0' for '--top <N>'"),
        ("stats --top many", "error: invalid value 'many' for '--top <N>'"),
        (
            "stats --from yesterday",
            "error: invalid value 'yesterday' for '--from <LSN|TIME>': expected an LSN, like 16/B374D848, or a time",
        ),
        ("stats --interval 5", "error: invalid value '5' for '--interval <TIME>': expected a number and a unit"),
        ("stats --interval 0s", "error: invalid value '0s' for '--interval <TIME>'"),
        ("stats --interval 99999999999999d", "error: invalid value '99999999999999d' for '--interval <TIME>'"),
        ("stats --threads 0", "error: invalid value '0' for '--threads <N>'"),
        ("stats --from 2026-11-23 -", "error: times are looked for before the WAL is read"),
        ("dump --since today", "error: invalid value 'today' for '--since <TIME>': \"today\" is not a time"),
        ("dump --follow --until 2026-11-23", "error: the argument '--follow' cannot be used with '--until <TIME>'"),
        ("dump -R orders", "error: --relation orders: names need --names FILE"),
        ("dump -R a.b.c.d", "error: invalid value 'a.b.c.d' for '--relation <T/D/R>'"),
        ("dump --database shop", "error: --database shop: names need --names FILE"),
        ("dump --show-names", "error: --show-names: names need --names FILE"),
        ("dump -s 0/2000000 -e 0/1000000", "error: --start 0/02000000 is after --end 0/01000000\n"),
        ("dump --since 2026-11-24 --until 2026-11-23", "error: --since 2026-11-24T00:00:00.000000Z is after --until 2026-11-23T"),
        ("stats --from 0/2000000 --to 0/1000000", "error: --from 0/02000000 is after --to 0/01000000\n"),
        ("stats --from 2026-11-24 --to 2026-11-23", "error: --from 2026-11-24T00:00:00.000000Z is after --to 2026-11-23T"),
        ("verify --from 0/2000000 --to 0/1000000", "error: --from 0/02000000 is after --to 0/01000000\n"),
        ("diff a b --start 0/2000000 --end 0/1000000", "error: --start 0/02000000 is after --end 0/01000000\n"),
        // Numbers say what they can be.
        ("stats --top 200001", "error: invalid value '200001' for '--top <N>': expected a number from 1 to 200000\n"),
        ("dump -x 4294967296", "error: invalid value '4294967296' for '--xid <XID>': expected a number from 0 to 4294967295\n"),
        ("dump -x seven", "error: invalid value 'seven' for '--xid <XID>': expected a number from 0 to 4294967295\n"),
        ("dump -B 4294967295", "error: invalid value '4294967295' for '--block <N>': expected a number from 0 to 4294967294\n"),
        ("dump -n many", "error: invalid value 'many' for '--limit <N>': expected a number, 0 or more\n"),
        ("dump --threads 0", "error: invalid value '0' for '--threads <N>': expected a number, 1 or more\n"),
        ("diff a b -U 65536", "error: invalid value '65536' for '--unified <N>': expected a number from 0 to 65535\n"),
        ("verify --system-identifier x", "error: invalid value 'x' for '--system-identifier <ID>': expected a number, 0 or more\n"),
        ("receive -D . --timeout x", "error: invalid value 'x' for '--timeout <SECONDS>': expected 0 to 315360000 seconds\n"),
    ] {
        let ran = pgwal(dir.path(), args);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{args}: {}", ran.stderr);
        assert!(ran.stderr.starts_with(says), "{args}: {}", ran.stderr);
        assert!(ran.stderr.contains("For more information, try '--help'."), "{args}: {}", ran.stderr);
    }
    fs::write(dir.path().join("names.json"), NAMES).unwrap();
    for (args, says) in [
        ("dump --names names.json -R public.customers", "error: --relation public.customers: names.json has no such relation"),
        ("dump --names names.json --database Shop", "error: --database Shop: names.json has no such database; there is shop\n"),
        (
            "dump --names names.json -R sales.LINES",
            "error: --relation sales.lines: names.json has no such relation; there is sales.\"Lines\", and capital letters count only in \
             double quotes: --relation 'sales.\"Lines\"'\n",
        ),
        (
            "dump --names names.json -R public.Customers",
            "error: --relation public.customers: names.json has no such relation; capital letters count only in double quotes, as in \
             --relation 'public.\"Customers\"'\n",
        ),
        // One that has them says so.
        ("dump --names names.json -R \"Customers\"", "error: --relation \"Customers\": names.json has no such relation\n"),
        (
            "dump --names names.json -R \"Orders\"",
            "error: --relation \"Orders\": names.json has no such relation; there is orders, and capital letters count only in double \
             quotes: --relation 'orders'\n",
        ),
    ] {
        let ran = pgwal(dir.path(), args);
        assert_eq!((ran.status, ran.stdout.as_str()), (2, ""), "{args}: {}", ran.stderr);
        assert!(ran.stderr.starts_with(says), "{args}: {}", ran.stderr);
    }
}

/// After the numbers in text, where they are asked for; in JSON whenever there are any.
#[test]
fn names_in_dump() {
    let dir = folder(&ten_minutes());
    fs::write(dir.path().join("names.json"), NAMES).unwrap();
    let dump = |args: &str| {
        let ran = pgwal(dir.path(), &format!("dump . {args}"));
        assert_eq!(ran.status, 0, "{args}: {}", ran.stderr);
        ran.stdout
    };
    let plain = dump("");
    assert_eq!(dump("--names names.json"), plain);
    let named = dump("--names names.json --show-names");
    assert!(named.contains(", blkref #0: rel 1663/5/16384 (shop.public.orders) blk 0 FPW\n"), "{named}");
    assert!(named.contains(", blkref #0: rel 1663/5/16386 (shop.sales.\"Lines\") blk 2\n"), "{named}");
    assert!(named.contains(", blkref #0: rel 1663/6/16387 blk 3 FPW\n"), "{named}");
    let names = [" (shop.public.orders)", " (\"Old Shop\".public.orders)", " (shop.sales.\"Lines\")"];
    assert_eq!(names.iter().fold(named, |text, name| text.replacen(name, "", 1)), plain);
    let details = dump("-b --names names.json --show-names");
    assert!(details.contains("\tblkref #0: rel 1663/5/16384 (shop.public.orders) fork main blk 0 (FPW)"), "{details}");
    let relations = |args: &str| -> Vec<Value> {
        let lines = dump(&format!("--format json {args}"));
        let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|line| line["blocks"][0]["relation"].clone()).filter(|name| !name.is_null()).collect()
    };
    assert_eq!(relations("--names names.json"), ["shop.public.orders", "\"Old Shop\".public.orders", "shop.sales.\"Lines\""]);
    assert_eq!(relations(""), [""; 0]);
}

/// Several values of one option are alternatives, different options must all hold.
#[test]
fn wider_filters_of_dump() {
    let dir = folder(&ten_minutes());
    fs::write(dir.path().join("names.json"), NAMES).unwrap();
    let xids = |args: &str| -> Vec<u32> {
        let ran = pgwal(dir.path(), &format!("dump . --names names.json {args}"));
        assert_eq!(ran.status, 0, "{args}: {}", ran.stderr);
        let xid = |line: &str| line.split_once("tx:").unwrap().1.split(',').next().unwrap().trim().parse().unwrap();
        ran.stdout.lines().map(xid).collect()
    };
    assert_eq!(xids("-x 700 -x 709 -x 1"), [700, 700, 709, 709]);
    assert_eq!(xids("-x 700 -x 709 -r Transaction"), [700, 709]);
    assert_eq!(xids("-R 1663/5/16384 -R 1663/6/16387"), [700, 703]);
    assert_eq!(xids("-R 1663/5/16384 -R 1663/6/16387 -x 703"), [703]);
    assert_eq!(xids("-R 1663/5/16384 -R 1663/6/16387 -B 3"), [703]);
    assert_eq!(xids("-R orders"), [700, 701]);
    assert_eq!(xids("-R shop.public.orders"), [700]);
    assert_eq!(xids("-R sales.\"Lines\" -R 1663/5/16388"), [702, 704]);
    assert_eq!(xids("--database 5"), [700, 702, 704, 706, 708]);
    assert_eq!(xids("--database Old_Shop -w"), [703, 709]);
    assert_eq!(xids("--database 5 --database 6").len(), 10);
    assert_eq!(xids("--database shop -R orders"), [700]);
    assert_eq!(xids("--database \"Old_Shop\" -w"), [703, 709]);
    assert_eq!(xids("--database 7"), [0u32; 0]);
    assert_eq!(xids("--since 2026-11-23_05:08"), [708, 708, 709, 709]);
    assert_eq!(xids("--until 2026-11-23_05:00:59.9"), [700, 700]);
    assert_eq!(xids("--since 2026-11-23_05:02:00.000001 --until 2026-11-23_05:03 -r Transaction"), [703]);
    // The same with any number of threads.
    let one = pgwal(dir.path(), "dump . --since 2026-11-23_05:03 --until 2026-11-23_05:06 --threads 1");
    for threads in [2, 3, 16] {
        let many = pgwal(dir.path(), &format!("dump . --since 2026-11-23_05:03 --until 2026-11-23_05:06 --threads {threads}"));
        assert_eq!((many.stdout, many.stderr), (one.stdout.clone(), one.stderr.clone()));
    }
}

/// A transaction of the workload, whose script knows every subtransaction.
struct Known {
    client: Client,
    xid: u32,
    /// Those that end with the transaction.
    live: Vec<u32>,
    /// Those that were rolled back before.
    rolled_back: Vec<u32>,
    outcome: &'static str,
    /// The WAL must name the top-level transaction of all of them.
    is_told: bool,
}

impl Known {
    fn begin(server: &Server, writes: bool) -> Known {
        let host = server.socket().to_str().unwrap();
        let mut client = postgres::Config::new().host(host).user("postgres").dbname("postgres").connect(NoTls).unwrap();
        client.batch_execute("BEGIN").unwrap();
        let sql = if writes { "INSERT INTO t VALUES (0) RETURNING xmin::text" } else { "SELECT (txid_current() % 4294967296)::text" };
        let xid = client.query_one(sql, &[]).unwrap().get::<_, String>(0).parse().unwrap();
        Known { client, xid, live: Vec::new(), rolled_back: Vec::new(), outcome: "", is_told: false }
    }

    fn sql(&mut self, sql: &str) {
        self.client.batch_execute(sql).unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// A subtransaction that writes, and is released.
    fn released(mut self) -> Known {
        self.sql("SAVEPOINT s");
        let xid = self.insert();
        self.live.push(xid);
        self.sql("RELEASE s");
        self
    }

    /// One that is not released, and so around all that follow.
    fn around(mut self) -> Known {
        self.sql("SAVEPOINT a");
        let xid = self.insert();
        self.live.push(xid);
        self
    }

    /// One that is rolled back, with another one that had been released into it.
    fn rolled_back(mut self) -> Known {
        self.sql("SAVEPOINT s");
        let outer = self.insert();
        self.sql("SAVEPOINT i");
        let inner = self.insert();
        self.sql("RELEASE i; ROLLBACK TO s; RELEASE s");
        self.rolled_back.extend([outer, inner]);
        self
    }

    fn insert(&mut self) -> u32 {
        let row = self.client.query_one("INSERT INTO t VALUES (1) RETURNING xmin::text", &[]).unwrap();
        row.get::<_, String>(0).parse().unwrap()
    }

    /// More of them than a backend remembers, 64.
    fn many(mut self) -> Known {
        for n in 0..24 {
            self = if n % 3 == 0 { self.rolled_back() } else { self.released() };
        }
        // The 64th is named with those before it, and so is the 128th.
        while self.live.len() + self.rolled_back.len() < 128 {
            self = self.released();
        }
        self.told()
    }

    fn told(mut self) -> Known {
        self.is_told = true;
        self
    }

    fn end(mut self, sql: &str, outcome: &'static str) -> Known {
        sql.split("; ").for_each(|sql| self.sql(sql));
        self.outcome = outcome;
        self
    }
}

/// Every subtransaction counts once, where it belongs if the WAL says so; what a crash cuts off counts in transactions.
#[test]
fn subtransactions_of_a_known_workload() {
    let test = "stats::subtransactions_of_a_known_workload";
    let servers = Postgres::all();
    if servers.is_empty() {
        Postgres::find_or_skip(None, test);
        return;
    }
    for postgres in servers {
        for level in ["replica", "logical"] {
            known_workload(&postgres, level);
        }
    }
}

fn known_workload(postgres: &Postgres, level: &str) {
    let major = postgres.major;
    let keep = if major < 13 { "wal_keep_segments = 500" } else { "wal_keep_size = 500MB" };
    let segments: &[&str] = if major < 11 { &[] } else { &["--wal-segsize=1"] };
    let settings = format!("wal_level = {level}\nmax_prepared_transactions = 5\nautovacuum = off\n{keep}");
    let server = postgres.start(segments, &settings).unwrap_or_else(|e| panic!("{major}: {e}"));
    server.sql("CREATE TABLE t(i int)").unwrap();
    let begin = |writes| Known::begin(&server, writes);
    let all_told = level == "logical" && major >= 14;
    let mut known = vec![
        begin(true).released().rolled_back().released().end("COMMIT", "committed"),
        begin(false).around().released().end("COMMIT", "committed"),
        begin(true).released().rolled_back().end("ROLLBACK", "aborted"),
        begin(true).released().rolled_back().released().end("PREPARE TRANSACTION 'a'; COMMIT PREPARED 'a'", "committed"),
        begin(false).released().released().end("PREPARE TRANSACTION 'b'; ROLLBACK PREPARED 'b'", "aborted"),
        begin(true).many().end("COMMIT", "committed"),
        begin(true).many().end("ROLLBACK", "aborted"),
        begin(true).many().end("PREPARE TRANSACTION 'c'; COMMIT PREPARED 'c'", "committed"),
    ];
    // Checkpoints list what runs: first one transaction, whose subtransactions can only be its own.
    let mut lost = vec![begin(false).around().released().released().told()];
    server.sql("CHECKPOINT").unwrap();
    known.push(begin(false).many().end("PREPARE TRANSACTION 'd'", "prepared"));
    lost.push(begin(true).many());
    lost.push(begin(false).around().released());
    // Then several, with too many subtransactions to list them. This also brings everything to disk before the crash.
    server.sql("CHECKPOINT").unwrap();
    server.control("stop -m immediate").unwrap();
    lost.iter_mut().for_each(|lost| lost.outcome = "lost");
    let transactions = lost.len();
    known.extend(lost);
    server.control("start").unwrap();
    let open = Known::begin(&server, true).around().released();
    known.push(Known { outcome: "open", is_told: true, ..open });
    server.sql("CHECKPOINT").unwrap();
    server.sql("SELECT pg_switch_wal()").unwrap();

    let ran = pgwal(&server.wal(), "stats . --by transaction,checkpoint --top 200000 --format json");
    let what = format!("{major}, {level}");
    assert_eq!(ran.status, 0, "{what}: {}", ran.stderr);
    let rows: HashMap<u64, Value> =
        ran.rows("transaction").into_iter().filter(|row| row["row"] == "row").map(|row| (row["xid"].as_u64().unwrap(), row)).collect();
    let number = |row: &Value, field: &str| row[field].as_u64().unwrap();
    let mut lost = 0;
    for Known { xid, live, rolled_back, outcome, is_told, .. } in &known {
        let what = format!("{what}: {xid}, {outcome}");
        let row = &rows.get(&u64::from(*xid));
        let subs: Vec<u32> = live.iter().chain(rolled_back).copied().collect();
        // Rows of subtransactions, with those that are counted with them.
        let own: Vec<&Value> = subs.iter().filter_map(|sub| rows.get(&u64::from(*sub))).collect();
        let counted: u64 = own.iter().map(|row| 1 + number(row, "subtransactions")).sum();
        let its = row.map_or(0, |row| number(row, "subtransactions"));
        assert_eq!(its + counted, subs.len() as u64, "{what}: {row:?} {own:?}");
        if *is_told || all_told {
            assert!(own.is_empty(), "{what}: {own:?}");
        }
        if *outcome == "lost" {
            assert!(own.iter().all(|row| row["outcome"] == "aborted" || row["is_subtransaction"] == true), "{what}: {own:?}");
            lost += u64::from(row.is_some());
        } else {
            // What ends with a transaction is listed by its end.
            assert!(own.iter().all(|row| rolled_back.contains(&(number(row, "xid") as u32))), "{what}: {own:?}");
            assert_eq!(row.map(|row| row["outcome"].as_str()), Some(Some(*outcome)), "{what}");
        }
        let records: u64 = row.iter().map(|row| number(row, "count")).chain(own.iter().map(|row| number(row, "count"))).sum();
        assert!(records >= subs.len() as u64, "{what}: {records} records");
    }
    let checkpoints = ran.rows("checkpoint");
    let crashes: Vec<&Value> = checkpoints.iter().filter(|row| row["cause"] == "crash_recovery").collect();
    assert_eq!(crashes.len(), 1, "{what}: {checkpoints:?}");
    assert_eq!(crashes[0]["lost_transactions"], transactions, "{what}");
    let rows_lost = rows.values().filter(|row| row["outcome"] == "lost" && row["is_subtransaction"] == false).count() as u64;
    assert!(rows_lost == lost && lost <= transactions as u64, "{what}: {rows_lost} rows, {lost} known");
}
