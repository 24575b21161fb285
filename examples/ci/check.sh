#!/bin/sh
# Checks a manifest, writes its plan, and runs a command in a session: all that a CI needs of seedbed.
#
#     check.sh PLAN.md COMMAND [ARGUMENT...]
#
# The plan is written to PLAN.md, in Markdown, for reviewers of the change. Then the swarm is applied, the command runs in its
# session with its environment, and the swarm is destroyed, even if the command fails. Exits with the command's code, or with 65
# if the manifest has diagnostics; nothing is created then.
#
# SEEDBED_MANIFEST  the manifest, if it is not in this directory or above it
# SEEDBED_SESSION   the session to run the command in, if more than one is at the top of the tree
set -eu

if [ "$#" -lt 2 ]; then
    echo "usage: check.sh PLAN.md COMMAND [ARGUMENT...]" >&2
    exit 64
fi
plan=$1
shift

# GitHub shows diagnostics on their lines; elsewhere they are text in the log.
if [ "${GITHUB_ACTIONS:-}" = true ]; then format=github; else format=text; fi
seedbed validate ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} --format "$format"

seedbed plan ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} --format markdown >"$plan"

exec seedbed run ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} ${SEEDBED_SESSION:+--session "$SEEDBED_SESSION"} -- "$@"
