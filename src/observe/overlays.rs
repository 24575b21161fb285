//! Tests whether overlays can be mounted.
#![expect(clippy::disallowed_methods, reason = "leaves no state directory where there was none")]

use std::fs;
use std::path::Path;

use crate::host::Host;
use crate::host::files::Root;
use crate::host::mounts;

/// Mounts an overlay in the directory of the layers as a trial. Directories created for the trial are removed again.
pub(super) fn probe(host: &Host) -> Result<(), String> {
    let made: Vec<&Path> = host.state.ancestors().take_while(|above| !above.exists()).collect();
    let found =
        Root::create(&host.state).map_err(|error| error.to_string()).and_then(|state| mounts::trial(&state));
    for directory in made {
        // Another run may have begun to use the directory.
        let _ = fs::remove_dir(directory);
    }
    found
}
