//! Times as a real server reads them.

use pgwal::text::Zone;
use pgwal::time_input::parse;
use pgwal::types::TimestampTz;
use pgwal_testkit::server::Postgres;

const DATES: [&str; 30] = [
    "2026-11-23",
    "2026-07-04",
    "20261123",
    "261123",
    "11/23/2026",
    "11/23/26",
    "23/11/2026",
    "Nov 23 2026",
    "23 Nov 2026",
    "23-Nov-2026",
    "2026-Nov-23",
    "November 23, 2026",
    "Monday November 23 2026",
    "2026.327",
    "J2461368",
    "2026-03-08",
    "2026-11-01",
    "99-01-01",
    "2026-02-29",
    "2024-02-29",
    "0044-03-15 BC",
    "2026-1-2",
    "10000-01-01",
    "9999-12-31",
    "12026-07-04",
    "292000-12-31",
    "294278-01-01",
    "Nov 23 20026",
    "120261123",
    "J5373485",
];
const TIMES: [&str; 18] = [
    "",
    "05:17",
    "05:17:08",
    "5:17:08.25",
    "05:17:08.1234567",
    "051708",
    "0517",
    "T051708",
    "T05:17:08",
    "02:30",
    "01:30:00",
    "24:00",
    "24:00:01",
    "5:17 PM",
    "12:00 am",
    "13:00 pm",
    "23:59:60",
    "05:60",
];
const ZONES: &[&str] = &[
    "",
    "+00",
    "-03:30",
    "+0530",
    "+5",
    " +02",
    "+15:59:59",
    "+16",
    "Z",
    "UTC",
    "gmt",
    "EST",
    "cest",
    "PDT",
    "America/New_York",
    "europe/berlin",
    "Mars/Phobos",
    "EST5EDT",
    "UTC+3",
    "MSK",
    "CET DST",
    "zulu",
    "Asia/Kolkata",
    "posix/America/New_York",
    "Posix/Europe/Berlin",
];
const OTHERS: &[&str] = &[
    "",
    " ",
    "nonsense",
    "05:17",
    "2026",
    "2026-11",
    "2026-13-01",
    "2026-11-23 2026-11-24",
    "05:17 2026-11-23",
    "05:17:08.5 Nov 23 2026 UTC",
    "Mon Nov 23 05:17:08 2026",
    "Mon Nov 23 05:17:08 2026 CET",
    "2026-11-23 05:17:08 America/Argentina/Buenos_Aires",
    "2026-11-23 at 05:17",
    "2026-11-23, 05:17",
    "2026-11-23 05:17 (UTC)",
    "2026-11-23T",
    "J2461368.5",
    "J2461368-05",
    "20261123T051708-05",
    "20261123T051708.5+0130",
    "1764000000",
    "allballs 2026-11-23",
];

/// What the server takes, in microseconds since 1970; `-`: nothing.
#[test]
fn a_server_reads_the_same() {
    let Some(postgres) = Postgres::find_or_skip(None, "time_input::a_server_reads_the_same") else { return };
    let server = postgres.start(&[], "datestyle = 'iso, mdy'").unwrap();
    server
        .sql(
            "CREATE FUNCTION read(t text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN \
             RETURN trunc(extract(epoch FROM t::timestamptz) * 1000000); EXCEPTION WHEN OTHERS THEN RETURN '-'; END $$",
        )
        .unwrap();
    let mut texts: Vec<String> = OTHERS.iter().map(|&text| text.to_owned()).collect();
    for date in DATES {
        for time in TIMES {
            for zone in ZONES {
                let space = if time.starts_with('T') { "" } else { " " };
                let gap = if zone.starts_with(['+', '-']) && zone.len() % 2 == 1 { "" } else { " " };
                texts.push(format!("{date}{space}{time}{gap}{zone}"));
            }
        }
    }
    let (mut read, mut refused) = (0, 0);
    for zone in ["UTC", "America/New_York", "Europe/Berlin", "Asia/Kolkata"] {
        let ours = Zone::named(zone).unwrap();
        for texts in texts.chunks(1000) {
            let list: Vec<String> = texts.iter().map(|text| format!("'{text}'")).collect();
            let asked = format!(
                "SET timezone = '{zone}'; SELECT string_agg(read(t), ' ' ORDER BY n) FROM unnest(ARRAY[{}]) WITH ORDINALITY AS x(t, n)",
                list.join(", ")
            );
            let theirs = server.sql(&asked).unwrap();
            for (text, theirs) in texts.iter().zip(theirs.split(' ')) {
                let found = parse(text, &ours, TimestampTz(0));
                let found =
                    found.map_or("-".to_owned(), |time| (i128::from(time.0) + i128::from(TimestampTz::UNIX_EPOCH_OFFSET)).to_string());
                assert_eq!(found, theirs, "\"{text}\" in {zone}");
                *(if theirs == "-" { &mut refused } else { &mut read }) += 1;
            }
        }
    }
    assert!(read > 10_000 && refused > 5_000, "{read} read, {refused} refused");
}
