//! Work on the items of a sequence with many threads; the results come in the order of the items.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::processors::Processors;

/// More threads than this share the bytes in flight in pieces too small to be worth it.
const MAX_THREADS: usize = 64;

/// Items that are on their way at a time where so many `threads` work.
pub(crate) fn window(threads: usize) -> usize {
    2 * threads.clamp(1, MAX_THREADS) + 1
}

/// Runs `reader` on what `work` makes of the items of `source`, while other threads work on what comes next; `threads` with its own.
///
/// When the reader is done, the workers are sent home.
pub(crate) fn with_workers<S, R, F, T>(threads: usize, source: S, work: F, reader: impl FnOnce(&Feed<S, R, F>) -> T) -> T
where
    S: Iterator + Send,
    R: Send,
    F: Fn(S::Item, bool) -> R + Sync,
{
    let workers = threads.clamp(1, MAX_THREADS) - 1;
    let pool = (workers > 0).then(|| pool(workers)).flatten();
    let feed = Feed::new(source, if pool.is_some() { window(threads) } else { 0 }, work);
    let run = || {
        let result = reader(&feed);
        feed.close();
        result
    };
    match &pool {
        Some(pool) => pool.in_place_scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|_| feed.work());
            }
            run()
        }),
        None => run(),
    }
}

/// Threads that work beside the calling one; `None` where the system has none left.
fn pool(workers: usize) -> Option<rayon::ThreadPool> {
    let mut builder = rayon::ThreadPoolBuilder::new().num_threads(workers);
    if let Some(processors) = Processors::for_workers(workers) {
        builder = builder.start_handler(move |number| processors.start(number));
    }
    builder.build().ok()
}

/// Items that workers take from a source, in order, and bring back as results, in any order; who asks for the results gets them
/// in the order of the items, and works too while they are not there. So many items at most are on their way at a time.
///
/// `work` is told whether there was time to work ahead. There is none for the first item of all, nor for those that nobody has
/// begun when the workers are sent home.
pub(crate) struct Feed<S: Iterator, R, F> {
    /// Where items come from. Taken before `queue` where both are: a source may take its time, and results come in meanwhile.
    source: Mutex<S>,
    work: F,
    /// Items that may be in the queue; zero: no workers.
    window: usize,
    queue: Mutex<Queue<R>>,
    /// The first result of the queue is there, or there will be none.
    ready: Condvar,
    /// The queue has room, or needs none any more.
    room: Condvar,
}

/// The results of a [`Feed`], whatever works on them.
pub(crate) trait Results<R> {
    /// The next result in order; `None` after the last.
    fn next(&self) -> Option<R>;

    /// Sends the workers home; what they have not begun comes from [`Results::next`].
    fn close(&self);
}

struct Queue<R> {
    /// Results in order; `None`: in work.
    results: VecDeque<Option<R>>,
    /// Results taken from the queue so far.
    given: usize,
    /// There are no more items.
    exhausted: bool,
    /// No more work is wanted.
    closed: bool,
}

impl<S: Iterator, R, F: Fn(S::Item, bool) -> R> Feed<S, R, F> {
    fn new(source: S, window: usize, work: F) -> Feed<S, R, F> {
        let queue = Queue { results: VecDeque::with_capacity(window), given: 0, exhausted: false, closed: window == 0 };
        let (queue, source) = (Mutex::new(queue), Mutex::new(source));
        Feed { source, work, window, queue, ready: Condvar::new(), room: Condvar::new() }
    }

    /// What a worker does until there is nothing left to do.
    fn work(&self) {
        loop {
            let source = lock(&self.source);
            let full = |queue: &mut Queue<R>| queue.is_open() && queue.results.len() >= self.window;
            let queue = self.room.wait_while(lock(&self.queue), full).unwrap_or_else(PoisonError::into_inner);
            if !queue.is_open() {
                return;
            }
            drop(queue);
            self.work_on_next(source);
        }
    }

    /// Takes the next item from the source, works on it, and puts the result in its place.
    fn work_on_next(&self, mut source: MutexGuard<'_, S>) {
        let item = source.next();
        let mut queue = lock(&self.queue);
        let Some(item) = item else {
            queue.exhausted = true;
            self.ready.notify_one();
            return;
        };
        let at = queue.given + queue.results.len();
        queue.results.push_back(None);
        drop(queue);
        drop(source);
        let result = (self.work)(item, at > 0);
        let mut queue = lock(&self.queue);
        let place = at - queue.given; // results are given in order, and this one was not there
        if let Some(slot) = queue.results.get_mut(place) {
            *slot = Some(result);
        }
        if place == 0 {
            self.ready.notify_one();
        }
    }
}

impl<S: Iterator, R, F: Fn(S::Item, bool) -> R> Results<R> for Feed<S, R, F> {
    fn next(&self) -> Option<R> {
        let mut queue = lock(&self.queue);
        loop {
            match queue.results.front() {
                Some(Some(_)) => {
                    let result = queue.results.pop_front().flatten();
                    queue.given += 1;
                    drop(queue);
                    self.room.notify_one();
                    return result;
                }
                None if queue.exhausted => return None,
                None if queue.closed => {
                    drop(queue);
                    let mut source = lock(&self.source);
                    queue = lock(&self.queue);
                    // A worker that had the source when the queue was closed has put there by now what it took.
                    if !queue.results.is_empty() || queue.exhausted {
                        continue;
                    }
                    drop(queue);
                    let item = source.next()?;
                    drop(source);
                    return Some((self.work)(item, false));
                }
                _ => {}
            }
            // Whoever would only wait can work as well.
            if queue.is_open() && queue.results.len() < self.window {
                drop(queue);
                let source = self.source.try_lock();
                let helps = source.is_ok();
                if let Ok(source) = source {
                    self.work_on_next(source);
                }
                queue = lock(&self.queue);
                if helps {
                    continue;
                }
            }
            let in_work = |queue: &mut Queue<R>| match queue.results.front() {
                Some(result) => result.is_none(),
                None => queue.is_open(),
            };
            queue = self.ready.wait_while(queue, in_work).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn close(&self) {
        lock(&self.queue).closed = true;
        self.room.notify_all();
    }
}

impl<R> Queue<R> {
    /// Whether more work is wanted, and there may be some.
    fn is_open(&self) -> bool {
        !self.closed && !self.exhausted
    }
}

/// Whatever a thread did that held the lock before: the state is whole, as nothing panics halfway through a change of it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The results of `items` numbers with `threads` workers, up to where the feed is closed.
    fn run(items: usize, threads: usize, window: usize, close_at: usize) -> Vec<(usize, bool)> {
        let in_flight = AtomicUsize::new(0);
        let feed = Feed::new(0..items, window, |item: usize, ahead| {
            let others = in_flight.fetch_add(1, Ordering::SeqCst);
            assert!(others <= window.max(1));
            if item.is_multiple_of(3) {
                std::thread::yield_now();
            }
            in_flight.fetch_sub(1, Ordering::SeqCst);
            (item, ahead)
        });
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| feed.work());
            }
            let mut results = Vec::new();
            while let Some(result) = feed.next() {
                results.push(result);
                if results.len() == close_at {
                    feed.close();
                }
            }
            feed.close();
            results
        })
    }

    #[test]
    fn results_come_in_order_and_whole() {
        for (threads, window) in [(0, 0), (1, 1), (2, 5), (7, 3)] {
            for close_at in [0, 1, 13, 200] {
                let results = run(100, threads, window, close_at);
                assert!(results.iter().map(|(item, _)| *item).eq(0..100), "{threads} threads, window {window}: {results:?}");
                assert!(!results[0].1, "there is no time for the first one");
            }
        }
        assert!(run(100, 2, 5, 0)[1].1);
        assert_eq!(run(0, 2, 5, 0), []);
    }
}
