//! Files that become shorter while they are mapped.
//!
//! Large files are mapped, as that is the fastest way to look at them. If another process cuts one short meanwhile, as `cp` does when it
//! writes over a file, the system stops whoever looks at what is gone. Nobody can go on from there, but the user can be told.

/// Has the process say so and leave with status 2.
#[cfg(unix)]
pub fn watch() {
    use signal_hook::consts::SIGBUS;
    use signal_hook::low_level;
    const MESSAGE: &[u8] = b"pgwal: a file became shorter while it was being read: run again when nothing writes to it\n";
    let tell = || {
        // There is nobody to tell that this failed.
        let _ = rustix::io::write(rustix::stdio::stderr(), MESSAGE);
        low_level::exit(2);
    };
    #[expect(unsafe_code, reason = "only few things may be done in a signal handler")]
    // SAFETY: a system call that writes a constant, and one that ends the process, are among them.
    let watched = unsafe { low_level::register(SIGBUS, tell) };
    // Without a handler, the system's own message has to do.
    drop(watched);
}

/// Files that are mapped cannot be cut short here.
#[cfg(not(unix))]
pub fn watch() {}
