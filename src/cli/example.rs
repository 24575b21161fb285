//! Examples of every command, for help and manual pages.
//!
//! The test `cli::help_examples::every_example_in_the_help_runs` runs each of them.

use std::fmt::Write as _;

/// Purpose of an example, and its line for a shell.
///
/// An exit code other than 0 is part of the purpose: "exits with 2".
pub(super) type Example = (&'static str, &'static str);

const HOOK_EXAMPLE: Example = (
    "Create a worktree as Claude Code does",
    "echo '{\"name\": \"feature-auth\"}' | seedbed hook claude create",
);

/// Examples of every command. A command is named as on the command line.
const EXAMPLES: &[(&str, &[Example])] = &[
    ("init", &[("Write seedbed.toml", "seedbed init")]),
    (
        "validate",
        &[
            ("Check the manifest", "seedbed validate"),
            ("Annotate a pull request in GitHub Actions", "seedbed validate --format github"),
        ],
    ),
    (
        "plan",
        &[
            ("Review the changes", "seedbed plan"),
            ("Save the plan, to apply exactly this plan later", "seedbed plan -o swarm.plan"),
            (
                "Check in a script for changes (exits with 2 if there are any)",
                "seedbed plan --quiet --detailed-exitcode",
            ),
        ],
    ),
    (
        "observe",
        &[
            ("Print the observation of this host", "seedbed observe"),
            ("Save it under a name that other hosts reach", "seedbed observe --host n1.local -o n1.json"),
        ],
    ),
    (
        "fleet",
        &[("Plan all hosts from their observations", "seedbed fleet plan --observations observations")],
    ),
    (
        "fleet apply",
        &[
            (
                "Apply on two hosts, or on none",
                "seedbed fleet apply ../fleet --hosts n1,n2 --launcher 'ssh {host} {command}'",
            ),
            ("Apply the changed manifest on the same hosts", "seedbed fleet apply ../fleet --yes"),
        ],
    ),
    ("fleet status", &[("Show every host", "seedbed fleet status ../fleet")]),
    (
        "fleet exec",
        &[
            (
                "Show the changes in every session of every host",
                "seedbed fleet exec ../fleet --all -- git status --short",
            ),
            (
                "Print the commit of each session of one host",
                "seedbed fleet exec ../fleet --hosts n1 --all -- git log --oneline -1",
            ),
        ],
    ),
    ("fleet start", &[("Run the commands of all sessions", "seedbed fleet start ../fleet")]),
    (
        "fleet collect",
        &[
            (
                "Bring the commits of all sessions here, and compare them with main",
                "seedbed fleet collect ../fleet --into main",
            ),
            ("Keep the rescues of all hosts, too", "seedbed fleet collect ../fleet --rescues"),
        ],
    ),
    (
        "fleet destroy",
        &[("Release everything, and save unsaved work", "seedbed fleet destroy ../fleet --rescue --yes")],
    ),
    (
        "fleet repair",
        &[
            ("Repair the sessions of all hosts", "seedbed fleet repair ../fleet"),
            ("Place the sessions of a lost host elsewhere", "seedbed fleet repair ../fleet --forget n3"),
        ],
    ),
    ("fleet recover", &[("Finish interrupted runs on all hosts", "seedbed fleet recover ../fleet")]),
    (
        "fleet kubernetes",
        &[(
            "Write a Job with four hosts, for `kubectl apply`",
            "seedbed fleet kubernetes /fleet --image IMAGE --repository URL --time 8h --pods 4 -o fleet.yaml",
        )],
    ),
    (
        "fleet plan",
        &[
            ("Review the parts of all hosts", "seedbed fleet plan --observations observations"),
            ("Save one plan for each host", "seedbed fleet plan --observations observations -o plans"),
        ],
    ),
    (
        "show",
        &[
            ("Show a saved plan", "seedbed show swarm.plan"),
            ("Write a comment for a pull request", "seedbed show swarm.plan --format markdown"),
        ],
    ),
    (
        "apply",
        &[
            ("Create or update the sessions", "seedbed apply"),
            ("Apply exactly the plan that was reviewed", "seedbed apply swarm.plan"),
            ("Save unsaved work of sessions that the manifest no longer has", "seedbed apply --rescue"),
        ],
    ),
    (
        "run",
        &[
            ("Run a test in a swarm that exists only for it", "seedbed run -- ./test.sh"),
            ("Choose the session", "seedbed run --session lead/coder-0 -- ./test.sh"),
            (
                "Run it in every session, and save the reports, also after a failure",
                "seedbed run --all --artifacts out --collect 'reports/**/*.xml' -- ./test.sh",
            ),
        ],
    ),
    (
        "status",
        &[
            ("Show every session", "seedbed status"),
            ("Repair discovery files, locks and leases", "seedbed status --repair"),
        ],
    ),
    (
        "exec",
        &[
            ("Run a test in one session", "seedbed exec lead -- ./test.sh"),
            (
                "Run a test in all replicas of a session, for an hour at most",
                "seedbed exec coder --timeout 1h -- ./test.sh",
            ),
            (
                "Run a test in the session of a test runner's worker",
                "TEST_PARALLEL_INDEX=1 seedbed exec --slot coder -- ./test.sh",
            ),
        ],
    ),
    (
        "start",
        &[
            ("Run the command of every session that has one", "seedbed start"),
            ("End agents that print nothing for 10 minutes", "seedbed start --stall 10m"),
        ],
    ),
    (
        "logs",
        &[
            ("Print the output of the last command", "seedbed logs lead"),
            ("Print the output while the command runs, until it ends", "seedbed logs lead --follow"),
        ],
    ),
    (
        "export",
        &[
            (
                "Write a script that opens a window of tmux for each session",
                "seedbed export --format tmux -o agents.sh",
            ),
            (
                "Write a file for process-compose",
                "seedbed export --format process-compose -o process-compose.yaml",
            ),
            (
                "Print the mounts of every session for docker compose",
                "seedbed export --format compose-mounts --image debian",
            ),
        ],
    ),
    (
        "collect",
        &[
            ("Show the commits, changes and conflicts of every session", "seedbed collect"),
            ("Show what has not landed in a branch yet", "seedbed collect --into main"),
            ("Write a bundle and a patch of each session", "seedbed collect -o results"),
        ],
    ),
    (
        "env",
        &[
            ("Set the variables in this shell", "eval \"$(seedbed env lead)\""),
            ("Write them for direnv", "seedbed env lead --format direnv > .envrc"),
        ],
    ),
    (
        "prompt",
        &[
            ("Start an agent's prompt", "seedbed prompt lead \"Review the open changes\""),
            ("Read the prompt from a file", "seedbed prompt coder-0 < task.md"),
        ],
    ),
    ("whoami", &[("Show the facts of a session", "seedbed exec lead -- seedbed whoami")]),
    (
        "spawn",
        &[
            ("Add a child to the session that this runs in", "seedbed exec lead -- seedbed spawn helper"),
            (
                "Add another session like one of the manifest",
                "seedbed spawn coder-9 --parent lead --template coder",
            ),
        ],
    ),
    ("release", &[("Release a spawned session", "seedbed release coder-9")]),
    ("hook", &[HOOK_EXAMPLE]),
    ("hook claude", &[HOOK_EXAMPLE]),
    ("hook claude create", &[HOOK_EXAMPLE]),
    (
        "hook claude remove",
        &[(
            "Release the session in a directory",
            "echo \"{\\\"worktree_path\\\": \\\"$PWD\\\"}\" | seedbed hook claude remove",
        )],
    ),
    (
        "explain",
        &[
            ("Find the owner of a port", "seedbed explain 8080"),
            ("Explain the directory and ports of a session", "seedbed explain coder-0"),
        ],
    ),
    (
        "destroy",
        &[
            ("Release one session", "seedbed destroy coder-1"),
            (
                "Show which sessions have landed in a branch and have no unsaved work",
                "seedbed destroy --dry-run --where landed=main,clean",
            ),
            ("Release all sessions, and save their unsaved work", "seedbed destroy --rescue"),
        ],
    ),
    (
        "recover",
        &[
            ("Recover after a crash", "seedbed recover"),
            ("Continue after the workspace was moved", "seedbed recover --moved"),
            ("Give the copied worktrees a swarm of their own", "seedbed recover --copied"),
        ],
    ),
    (
        "doctor",
        &[
            ("Check for problems", "seedbed doctor"),
            ("Remove orphaned leases of ports", "seedbed doctor --reap"),
        ],
    ),
    ("rescue", &[("List saved work", "seedbed rescue list")]),
    ("rescue list", &[("List saved work", "seedbed rescue list")]),
    (
        "rescue restore",
        &[
            ("Restore saved work in a new worktree", "seedbed rescue restore RESCUE --into restored"),
            ("Restore saved work in an active session", "seedbed rescue restore RESCUE --into coder-0"),
        ],
    ),
    ("rescue drop", &[("Delete saved work without a question", "seedbed rescue drop RESCUE --yes")]),
    (
        "list",
        &[("List the swarms", "seedbed list"), ("List the swarms for a program", "seedbed list --json")],
    ),
    (
        "completions",
        &[
            ("Complete in this shell (bash)", "source <(seedbed completions bash)"),
            ("Install the script for fish", "seedbed completions fish > seedbed.fish"),
        ],
    ),
    (
        "man",
        &[
            ("Write one page", "seedbed man plan > seedbed-plan.1"),
            ("Write all pages", "seedbed man -o man1"),
        ],
    ),
    (
        "schema",
        &[
            ("Save the schema of the manifest, for an editor", "seedbed schema > seedbed.schema.json"),
            ("Show the schema of a plan", "seedbed schema plan"),
        ],
    ),
];

/// Returns the examples of a command.
pub(super) fn examples(command: &str) -> &'static [Example] {
    EXAMPLES.iter().find(|(name, _)| *name == command).map_or(&[], |(_, examples)| examples)
}

/// Returns the examples of a command as the end of its help.
pub(super) fn help(command: &str) -> String {
    let mut text = "Examples:".to_owned();
    for (purpose, line) in examples(command) {
        let _ = write!(text, "\n  # {purpose}\n  {line}");
    }
    text
}
