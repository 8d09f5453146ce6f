//! The `pgwal` command.

use std::io::Write;

/// First path through everything: dumps segments in the order given. The real command line replaces it.
fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let details = args.iter().any(|a| a == "-b");
    args.retain(|a| a != "-b" && a != "dump");
    let mut decoder = pgwal::Decoder::new();
    let mut out = pgwal::text::Text::new(pgwal::WalFormat::new(15), pgwal::text::Zone::local());
    let mut stdout = std::io::stdout().lock();
    for path in args {
        decoder.feed(&std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}")));
        loop {
            match decoder.next_record() {
                Ok(Some(raw)) => {
                    out.set_format(raw.fmt);
                    out.clear();
                    match raw.decode() {
                        Ok(record) => {
                            if let Err(e) = pgwal::waldump::write_record(&record, details, &mut out) {
                                eprintln!("pgwal: {e}");
                            }
                        }
                        Err(e) => eprintln!("pgwal: {e}"),
                    }
                    let _ = stdout.write_all(out.as_bytes());
                }
                Ok(None) => break,
                Err(e) => {
                    eprintln!("pgwal: {e}");
                    break;
                }
            }
        }
    }
    eprintln!("pgwal: {}", decoder.finish());
}
