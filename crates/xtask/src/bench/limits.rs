//! What this machine can do at most: whoever reads WAL must read its bytes and compute their checksums.

use std::fmt;
use std::fs::{self, File};
use std::hint::black_box;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::time::Instant;

use pgwal_testkit::aligned;

/// The machine, and bytes a second.
pub struct Limits {
    processor: String,
    pub threads: usize,
    /// Reading a file in the page cache, 512 kB at a time into the same memory, with one thread and with all.
    read: [f64; 2],
    /// CRC-32C of bytes in the processor's cache.
    crc: [f64; 2],
}

/// Bytes that are read at a time.
const PIECE: usize = 512 << 10;
/// Bytes of the file.
const FILE: usize = 256 << 20;

impl Limits {
    /// Measures for about two seconds.
    pub fn measure() -> io::Result<Limits> {
        let threads = std::thread::available_parallelism()?.get();
        let mut file = tempfile::tempfile()?;
        let noise: Vec<u8> = (0..PIECE as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for _ in 0..FILE / PIECE {
            file.write_all(&noise)?;
        }
        let both = |work: &(dyn Fn() -> io::Result<()> + Sync), bytes: usize| -> io::Result<[f64; 2]> {
            Ok([rate(1, bytes, work)?, rate(threads, bytes, work)?])
        };
        let read = both(&|| read(&file), FILE)?;
        let crc = both(
            &|| {
                for _ in 0..FILE / PIECE {
                    black_box(crc32c::crc32c(black_box(&noise)));
                }
                Ok(())
            },
            FILE,
        )?;
        Ok(Limits { processor: processor(), threads, read, crc })
    }

    /// The most that `threads` can read and check: each byte takes its time for the one and then for the other.
    pub fn rate(&self, threads: usize) -> f64 {
        let at = usize::from(threads > 1);
        1.0 / (1.0 / self.read[at] + 1.0 / self.crc[at])
    }
}

/// The best of several runs, all threads together.
fn rate(threads: usize, bytes: usize, work: &(dyn Fn() -> io::Result<()> + Sync)) -> io::Result<f64> {
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = Instant::now();
        std::thread::scope(|scope| {
            let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            running.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))))
        })?;
        best = best.max((threads * bytes) as f64 / start.elapsed().as_secs_f64());
    }
    Ok(best)
}

fn read(file: &File) -> io::Result<()> {
    let mut buffer = aligned::Buffer::new(PIECE);
    for at in 0..FILE / PIECE {
        file.read_exact_at(buffer.as_mut_slice(), (at * PIECE) as u64)?;
        black_box(buffer.as_slice());
    }
    Ok(())
}

/// The processor's own name.
fn processor() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| info.lines().find(|line| line.starts_with(name)).and_then(|line| line.split(": ").nth(1)).unwrap_or("?");
    format!("{} (family {}, model {})", field("model name"), field("cpu family"), field("model\t"))
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limits { processor, threads, read, crc } = self;
        let gb = |rate: f64| format!("{:.1}", rate / 1e9);
        writeln!(f, "{} {}, {threads} threads, {processor}", std::env::consts::OS, std::env::consts::ARCH)?;
        writeln!(f, "reading from the page cache: {} GB/s with one thread, {} GB/s with all", gb(read[0]), gb(read[1]))?;
        write!(f, "crc32c in the cache: {} GB/s with one thread, {} GB/s with all", gb(crc[0]), gb(crc[1]))
    }
}
