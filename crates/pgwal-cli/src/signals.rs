//! Signals that ask a command to end.

use std::fs;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXFSZ};
use signal_hook::flag;

/// Makes a limit on the size of files an error like a full disk, and no reason to die in the middle of a file.
pub fn survive_file_size_limit() {
    let ignored = flag::register(SIGXFSZ, Arc::default());
    drop(ignored); // without it, the system's own way has to do
}

/// A flag that SIGHUP, SIGINT, SIGQUIT and SIGTERM set, so that the command can end with nothing half done.
///
/// However often they come, the process does not die of them: service managers and timeout(1) send two at once, and the second must not cut
/// off what the first has begun. SIGHUP stays ignored where it is, as under nohup. A limit on the size of files (SIGXFSZ) becomes an error
/// of writing, like a full disk.
pub fn stop() -> io::Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        if signal == SIGHUP && is_ignored(signal) {
            continue;
        }
        flag::register_conditional_default(signal, Arc::clone(asking()))?;
        flag::register(signal, Arc::clone(&stop))?;
    }
    flag::register(SIGXFSZ, Arc::default())?;
    Ok(stop)
}

/// Does what waits for the user, and not for a flag: meanwhile the signals end the process at once.
pub fn while_asking<T>(ask: impl FnOnce() -> T) -> T {
    asking().store(true, Ordering::SeqCst);
    let answer = ask();
    asking().store(false, Ordering::SeqCst);
    answer
}

fn asking() -> &'static Arc<AtomicBool> {
    static ASKING: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    ASKING.get_or_init(Arc::default)
}

/// Whether the process was started with the signal ignored. proc(5): `SigIgn`, a bit for each signal, from 1 on.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let digits = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
