//! Whether standard output was closed when the program was started (`>&-`).
//!
//! Rust's runtime opens /dev/null for any closed standard stream before `main` starts, so that no other file gets its descriptor.
//! What is written then vanishes without an error: a base backup, say. And from within `main` nobody can tell such a /dev/null from one that
//! was asked for. So the question is asked before the runtime starts.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

static STDOUT_IS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Standard output can be written to, as far as its being open goes.
///
/// # Errors
/// It was closed: what a write would have said.
pub fn check_stdout() -> io::Result<()> {
    if STDOUT_IS_CLOSED.load(Ordering::Relaxed) {
        return Err(io::Error::from_raw_os_error(rustix::io::Errno::BADF.raw_os_error()));
    }
    Ok(())
}

/// Asks. Runs before `main`, so it uses nothing of the standard library that has to be set up: one system call, one store.
#[cfg(target_os = "linux")]
extern "C" fn look() {
    let is_closed = rustix::io::fcntl_getfd(rustix::stdio::stdout()) == Err(rustix::io::Errno::BADF);
    STDOUT_IS_CLOSED.store(is_closed, Ordering::Relaxed);
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "only a function in this section is called before Rust's runtime starts")]
#[used]
// SAFETY: ELF's `.init_array` holds pointers to functions that the loader calls with the C calling convention, and this is one. It may be
// given arguments (argc, argv, envp), which such a function need not take. It touches no state but the static above.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;
