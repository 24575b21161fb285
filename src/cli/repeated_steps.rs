//! `--setup` and `--refresh`: steps that are repeated in active sessions.

use std::collections::{BTreeSet, HashSet};

use clap::Args;
use seedbed::name::SessionPath;
use seedbed::plan::{Again, Plan, Session};
use seedbed::state::Record;

use super::exit::Failure;
use super::{completions, lookup};

/// Steps that are repeated in active sessions.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct RepeatedSteps {
    /// Run `setup` again in these sessions [default: all with a `setup`]
    #[arg(long, value_name = "SESSION", num_args = 0.., add = completions::active_sessions(), help_heading = "Repeated steps")]
    setup: Option<Vec<String>>,
    /// Copy changed files of the workspace (`copy`) again into these sessions [default: all]; files that a session has
    /// changed are kept
    #[arg(long, value_name = "SESSION", num_args = 0.., add = completions::active_sessions(), help_heading = "Repeated steps")]
    refresh: Option<Vec<String>>,
}

impl RepeatedSteps {
    /// Returns whether no step is requested.
    pub(super) fn is_empty(&self) -> bool {
        self.setup.is_none() && self.refresh.is_none()
    }

    /// Returns the sessions of a swarm that the options select; none if the swarm is not applied yet. Without names, a
    /// `setup` runs in each session that has one in `plan`.
    pub(super) fn sessions(&self, record: Option<&Record>, plan: &Plan) -> Result<Again, Failure> {
        let with_setup: HashSet<_> = plan
            .sessions()
            .iter()
            .filter(|session| !session.setup.is_empty())
            .map(|session| &session.path)
            .collect();
        let setup = chosen(self.setup.as_deref(), record, |session| with_setup.contains(&session.path))?;
        let mut again = Again::default();
        again.setup = setup;
        again.refresh = chosen(self.refresh.as_deref(), record, |_| true)?;
        Ok(again)
    }
}

fn chosen(
    names: Option<&[String]>,
    record: Option<&Record>,
    is_default: impl Fn(&Session) -> bool,
) -> Result<BTreeSet<SessionPath>, Failure> {
    let (Some(names), Some(record)) = (names, record) else { return Ok(BTreeSet::new()) };
    if names.is_empty() {
        let sessions = record.plan.sessions().iter().filter(|session| is_default(session));
        return Ok(sessions.map(|session| session.path.clone()).collect());
    }
    let mut chosen = BTreeSet::new();
    for name in names {
        chosen.extend(lookup::sessions(record, name)?.into_iter().map(|session| session.path.clone()));
    }
    Ok(chosen)
}
