//! Removes the temporary files of killed processes.

use super::temporary::name_of;
use super::{Error, Root, hidden, removal};

impl Root {
    /// Removes the temporary files in this directory whose processes have ended.
    pub fn sweep(&self) -> Result<(), Error> {
        for temporary in &self.names()? {
            let Some(name) = name_of(temporary) else { continue };
            let Some(held) = self.take_abandoned(temporary) else { continue };
            hidden::finish(self, temporary, name)?;
            removal::remove(self, temporary, removal::Threads::One)?;
            drop(held);
        }
        Ok(())
    }
}
