//! The README's example of the library, which a test compares with it.

/// Runs it.
pub(super) fn run() -> Result<(), Box<dyn std::error::Error>> {
    main()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let segments = [pgwal::Segment::open("fixtures/v17/pgbench/00000001000000000000000B")?];
    let mut records = pgwal::records(&segments);
    for raw in &mut records {
        let raw = raw?; // framed: joined over pages, CRC checked
        let record = raw.decode()?; // block references, page images, main data
        println!("{} {} {:?}", raw.lsn, record.rmgr_name(), record.payload()?); // typed when asked for
    }
    println!("{}", records.end().unwrap()); // where the WAL ends, and why
    Ok(())
}
