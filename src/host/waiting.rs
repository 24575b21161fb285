//! Work on many items that mostly waits: for other hosts, or for a file system of the network.

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Returns the results of `work` in the order of the items. At most `at_once` items are worked on at a time, on a thread each;
/// fewer if the host gives no more threads.
pub fn map<T: Sync, R: Send>(items: &[T], at_once: usize, work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        while let Some((at, item)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            items.get(at).map(|item| (at, item))
        } {
            done.push((at, work(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let others = 1..at_once.min(items.len());
        let others: Vec<_> =
            others.map_while(|_| thread::Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut done = take();
        for other in others {
            done.extend(other.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::map;

    #[test]
    fn results_are_in_order_and_items_are_worked_on_at_once() {
        assert_eq!(map(&[3, 1, 2], 2, |item| item * 2), [6, 2, 4]);
        assert_eq!(map(&[] as &[u8], 9, |item| *item), Vec::<u8>::new());
        // Each waits for all others.
        let barrier = Barrier::new(100);
        let items: Vec<usize> = (0..100).collect();
        let done = map(&items, 100, |item| {
            barrier.wait();
            *item
        });
        assert_eq!(done, items);
    }
}
