//! A processor for each thread, from its first moment.
//!
//! Linux often starts a new thread on the processor of the thread that made it, and finds out some milliseconds later that another one is
//! idle: on a virtual machine with two processors, both threads then share one for a sixth of the time that it takes to verify 300 MB.

#[cfg(target_os = "linux")]
use rustix::thread::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};

/// Where the workers of a thread start: each on a processor of its own.
#[derive(Debug)]
pub(crate) struct Processors {
    /// Those that this process may use.
    #[cfg(target_os = "linux")]
    all: CpuSet,
    /// Those that are left, beside that of the thread itself.
    #[cfg(target_os = "linux")]
    others: Vec<usize>,
}

#[cfg(target_os = "linux")]
impl Processors {
    /// For the calling thread and so many workers; `None` where there are more processors than threads, or fewer: which ones are best is
    /// then for the system to say.
    pub(crate) fn for_workers(workers: usize) -> Option<Processors> {
        let all = sched_getaffinity(None).ok()?;
        let own = sched_getcpu();
        let others: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&processor| all.is_set(processor) && processor != own).collect();
        (others.len() == workers).then_some(Processors { all, others })
    }

    /// Moves the calling thread, worker `number`, to its processor. From there the system may move it on.
    pub(crate) fn start(&self, number: usize) {
        if let Some(&processor) = self.others.get(number) {
            let mut one = CpuSet::new();
            one.set(processor);
            // Where it may not, it starts where it is.
            if sched_setaffinity(None, &one).is_ok() {
                let _ = sched_setaffinity(None, &self.all);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Processors {
    /// The system finds the best place by itself.
    pub(crate) fn for_workers(_workers: usize) -> Option<Processors> {
        None
    }

    /// Nothing to do.
    pub(crate) fn start(&self, _number: usize) {}
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_worker_starts_on_its_own_processor_and_is_free_to_leave() {
        let may = sched_getaffinity(None).unwrap();
        let count = may.count() as usize;
        assert!(Processors::for_workers(count).is_none() && Processors::for_workers(count + 7).is_none());
        let processors = Processors::for_workers(count - 1).unwrap();
        std::thread::scope(|scope| {
            for number in 0..count + 1 {
                let processors = &processors;
                scope.spawn(move || {
                    processors.start(number);
                    assert!(sched_getaffinity(None).unwrap() == may, "{number} of {processors:?}");
                });
            }
        });
        let mut places = processors.others.clone();
        places.dedup();
        assert_eq!(places.len(), count - 1);
    }
}
