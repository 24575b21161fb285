//! Commands that messages suggest: each can be pasted as it is.
//!
//! Messages, those of the library too, name a command without options: `seedbed apply`. If this command line has `-f`,
//! `-C` or `--swarm`, the suggested command needs them as well.

use std::borrow::Cow;
use std::sync::OnceLock;

use clap::CommandFactory as _;
use seedbed::host::text::{printable, shell_quoted};

use super::{Arguments, Global};

/// Options of this command line that each suggested command needs, followed by a space each.
static OPTIONS: OnceLock<String> = OnceLock::new();

/// Beginnings of the text after a command for another workspace, which needs no option.
const ELSEWHERE: [&str; 4] = ["there", "of that", "in /", "in its"];

/// Keeps the options that suggested commands need. A manifest from standard input cannot be read again.
pub(super) fn keep_options(global: &Global) {
    let manifest = global.manifest.as_ref().filter(|path| path.as_os_str() != "-");
    let options = [("-C", global.directory.as_ref()), ("-f", manifest)];
    let options = options.into_iter().filter_map(|(name, path)| Some((name, path?.to_string_lossy())));
    let swarm = global.swarm.as_ref().map(|swarm| ("--swarm", swarm.into()));
    let text = |(name, value): (&str, Cow<'_, str>)| format!("{name} {} ", shell_quoted(&printable(&value)));
    let _ = OPTIONS.set(options.chain(swarm).map(text).collect());
}

/// Returns a message with the options of this command line in each command that it suggests.
pub(super) fn pasteable(message: &str) -> String {
    match OPTIONS.get() {
        Some(options) if !options.is_empty() => with_options(message, options),
        _ => message.to_owned(),
    }
}

fn with_options(message: &str, options: &str) -> String {
    const PROGRAM: &str = "seedbed ";
    let commands = Arguments::command();
    let mut text = String::with_capacity(message.len());
    let mut rest = message;
    while let Some(at) = rest.find(PROGRAM) {
        let (before, after) = rest.split_at(at + PROGRAM.len());
        let name = after.split(|c: char| !c.is_ascii_lowercase()).next().unwrap_or_default();
        let is_word = !rest[..at].ends_with(|c: char| c.is_alphanumeric() || "_-./".contains(c));
        text.push_str(before);
        if is_word && commands.find_subcommand(name).is_some() && !is_elsewhere(after) {
            text.push_str(options);
        }
        rest = after;
    }
    text + rest
}

/// Returns whether the command at the beginning of this text is one for another workspace.
fn is_elsewhere(command: &str) -> bool {
    let after = command.find(['`', ',', ';', '\n']).map_or("", |end| &command[end..]);
    let after = after.trim_start_matches(['`', ',', ' ']);
    ELSEWHERE.iter().any(|beginning| after.starts_with(beginning))
}

#[cfg(test)]
mod tests {
    use super::with_options;

    #[test]
    fn suggested_commands_repeat_the_options_of_the_command_line() {
        let check = |message: &str, expected: &str| {
            assert_eq!(with_options(message, "-f 'a b.toml' "), expected);
        };
        check("help: run `seedbed apply`", "help: run `seedbed -f 'a b.toml' apply`");
        check("again: seedbed apply --refresh a", "again: seedbed -f 'a b.toml' apply --refresh a");
        check(
            "`seedbed plan`, then `seedbed destroy`",
            "`seedbed -f 'a b.toml' plan`, then `seedbed -f 'a b.toml' destroy`",
        );
        for other in [
            "run `seedbed destroy` there",
            "seedbed recover, in /w",
            "seedbed recover --moved, in its new path",
            "this is a bug in seedbed or in a kind",
            "~/.local/state/seedbed status",
            "an older seedbed wrote it",
        ] {
            check(other, other);
        }
    }
}
