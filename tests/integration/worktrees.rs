//! Tests of worktrees: how they are created and checked out, and what Git does beside them.

mod branches;
mod checkout;
mod concurrent_git;
mod garbage_collection;
mod git_environment;
mod gone_repositories;
mod lost_worktrees;
mod overlay;
mod permissions;
mod relative;
mod repositories;
mod seeds;
mod side_by_side;
mod worktree_include;
