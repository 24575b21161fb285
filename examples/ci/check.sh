#!/bin/sh
# What any CI needs of seedbed, in three steps: is the manifest sound, what would it do, do the tests pass in it.
#
#     check.sh PLAN.md COMMAND [ARGUMENT...]
#
# The plan is written to PLAN.md, in Markdown, for whoever reviews the change. Then the swarm is made, the command is
# run in its session with its environment, and the swarm is taken away again, whatever the command does. Ends with the
# command's code; with 65 where the manifest has faults, before anything was made.
#
# SEEDBED_MANIFEST  the manifest, where it is not found by walking up from here
# SEEDBED_SESSION   the session to run the command in, where more than one stands at the top
set -eu

if [ "$#" -lt 2 ]; then
    echo "usage: check.sh PLAN.md COMMAND [ARGUMENT...]" >&2
    exit 64
fi
plan=$1
shift

# Faults stand on the line that they are of, in GitHub's view of the change; in a log elsewhere.
if [ "${GITHUB_ACTIONS:-}" = true ]; then format=github; else format=text; fi
seedbed validate ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} --format "$format"

seedbed plan ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} --format markdown >"$plan"

exec seedbed run ${SEEDBED_MANIFEST:+-f "$SEEDBED_MANIFEST"} ${SEEDBED_SESSION:+--session "$SEEDBED_SESSION"} -- "$@"
