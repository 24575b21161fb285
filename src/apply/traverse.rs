//! Visits the tree of sessions in parallel, in either direction.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::plan::Session;

/// Runs `act` for each session by its position. A session starts once its parent is done and waits for no other
/// session. With one job, the order is that of [`Tree::in_order`].
pub(super) fn parents_first(sessions: &[Session], jobs: NonZeroUsize, act: impl Fn(usize) + Sync) {
    let tree = &Tree::new(sessions);
    let act = &act;
    with_jobs(jobs, |scope| {
        for &root in &tree.roots {
            scope.spawn_fifo(move |scope| tree.down(scope, root, act));
        }
    });
}

/// Runs `act` for each session by its position. A session starts once its children are done. With one job, the order is
/// the exact reverse of the order of [`parents_first`].
pub(super) fn children_first(sessions: &[Session], jobs: NonZeroUsize, act: impl Fn(usize) + Sync) {
    let tree = &Tree::new(sessions);
    let act = &act;
    if jobs == NonZeroUsize::MIN {
        return with_jobs(jobs, |_| tree.in_order().into_iter().rev().for_each(act));
    }
    let waiting: &Vec<_> = &tree.children.iter().map(|children| AtomicUsize::new(children.len())).collect();
    with_jobs(jobs, |scope| {
        let leaves = (0..sessions.len()).rev().filter(|at| tree.children[*at].is_empty());
        for leaf in leaves {
            scope.spawn_fifo(move |scope| tree.up(scope, leaf, waiting, act));
        }
    });
}

/// Runs `act` for each position below `count`, in any order.
pub(super) fn side_by_side(count: usize, jobs: NonZeroUsize, act: impl Fn(usize) + Sync) {
    let act = &act;
    with_jobs(jobs, |scope| {
        for at in 0..count {
            scope.spawn_fifo(move |_| act(at));
        }
    });
}

struct Tree {
    roots: Vec<usize>,
    parents: Vec<Option<usize>>,
    children: Vec<Vec<usize>>,
}

impl Tree {
    /// Creates the tree; a session whose parent is not among `sessions` is a root.
    fn new(sessions: &[Session]) -> Self {
        let position: HashMap<_, _> =
            sessions.iter().enumerate().map(|(at, session)| (&session.path, at)).collect();
        let parents: Vec<Option<usize>> = sessions
            .iter()
            .map(|session| session.parent.as_ref().and_then(|parent| position.get(parent).copied()))
            .collect();
        let mut children = vec![Vec::new(); sessions.len()];
        let mut roots = Vec::new();
        for (at, parent) in parents.iter().enumerate() {
            match parent {
                Some(parent) => children[*parent].push(at),
                None => roots.push(at),
            }
        }
        Self { roots, parents, children }
    }

    /// Returns the positions of all sessions, level by level: the order in which one job visits them.
    fn in_order(&self) -> Vec<usize> {
        let mut order = self.roots.clone();
        let mut at = 0;
        while let Some(&next) = order.get(at) {
            order.extend(&self.children[next]);
            at += 1;
        }
        order
    }

    fn down<'s>(&'s self, scope: &rayon::ScopeFifo<'s>, at: usize, act: &'s (impl Fn(usize) + Sync)) {
        act(at);
        for &child in &self.children[at] {
            scope.spawn_fifo(move |scope| self.down(scope, child, act));
        }
    }

    fn up<'s>(
        &'s self,
        scope: &rayon::ScopeFifo<'s>,
        at: usize,
        waiting: &'s [AtomicUsize],
        act: &'s (impl Fn(usize) + Sync),
    ) {
        act(at);
        if let Some(parent) = self.parents[at]
            && waiting[parent].fetch_sub(1, Ordering::AcqRel) == 1
        {
            scope.spawn_fifo(move |scope| self.up(scope, parent, waiting, act));
        }
    }
}

/// Maximum number of threads of one step. The 64 sessions that are promised to be provisioned at once need 64.
/// Thousands of threads only search for work in each other's queues, and did not end within minutes.
const JOBS_MAX: usize = 256;

/// Runs `work` on `jobs` threads, at most [`JOBS_MAX`], or on the current thread's pool if they cannot be created.
fn with_jobs<'s>(jobs: NonZeroUsize, work: impl FnOnce(&rayon::ScopeFifo<'s>) + Send) {
    match rayon::ThreadPoolBuilder::new().num_threads(jobs.get().min(JOBS_MAX)).build() {
        Ok(pool) => pool.scope_fifo(work),
        Err(_) => rayon::scope_fifo(work),
    }
}
