//! Signals end a task in order: what it started is stopped, and its directories are removed.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on, SIGINT, SIGTERM and SIGHUP only set what [`check`] looks at.
pub fn watch() -> io::Result<()> {
    let stop = STOP.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// An error, once a signal has come.
pub fn check() -> io::Result<()> {
    match STOP.get() {
        Some(stop) if stop.load(Ordering::Relaxed) => Err(io::Error::new(io::ErrorKind::Interrupted, "interrupted by a signal")),
        _ => Ok(()),
    }
}
