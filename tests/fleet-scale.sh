#!/usr/bin/env bash
# fleet-scale.sh - measures a fleet of N simulated hosts on this machine, by hand.
#
#   fleet-scale.sh N [SESSIONS]      N hosts, SESSIONS each (default 2)
#
# Every host is a clone and a state directory, in memory. The launcher runs the command on this machine with the state
# directory of the host, so the times have no network. Each line of the output is an action, its seconds, and the parts of an
# apply by the times of the files in the directory of the fleet.
#
# Environment: SEEDBED=PATH of the program (default target/release/seedbed), JOBS=N hosts at once (default 64), TOP=DIR (default
# /dev/shm), KEEP=1 keeps the directory. With SLURM=1, the hosts are n1 to nN of the cluster that SLURM_CONF names, as
# `slurm-cluster.sh start DIR N` makes one, and Slurm is the launcher.
set -euo pipefail

N=${1:?usage: fleet-scale.sh N [SESSIONS]}
SESSIONS=${2:-2}
SEEDBED=$(realpath "${SEEDBED:-$(dirname "$0")/../target/release/seedbed}")
top=$(mktemp -d "${TOP:-/dev/shm}/fleet-scale.XXXXXX")
[ -n "${KEEP:-}" ] || trap 'rm -rf "$top"' EXIT
mkdir "$top/bin"
# A step of Slurm finds its host by the name of the node.
cat > "$top/bin/seedbed" <<WRAPPER
#!/bin/sh
[ -z "\${SLURMD_NODENAME:-}" ] || export SEEDBED_STATE_DIR="$top/\$SLURMD_NODENAME/state"
exec "$SEEDBED" "\$@"
WRAPPER
chmod +x "$top/bin/seedbed"
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_NOSYSTEM=1
git init -q -b main "$top/origin"
for i in $(seq 10); do echo "file $i" > "$top/origin/file-$i.txt"; done
cat > "$top/origin/seedbed.toml" <<TOML
version = 1
swarm = "scale"
[fleet]
shards = $N
[session.worker]
count = $((N * SESSIONS))
resources = ["git-worktree", "directory"]
TOML
git -C "$top/origin" add -A
git -C "$top/origin" -c user.name=a -c user.email=a@example.org commit -qm first
hosts=
for k in $(seq "$N"); do
    mkdir "$top/n$k"
    git clone -q --shared "$top/origin" "$top/n$k/repository"
    hosts+=",n$k"
done
launcher="SEEDBED_STATE_DIR=$top/{host}/state PATH=$top/bin:$PATH sh -c {command}"
export SEEDBED_STATE_DIR="$top/coordinator"
cd "$top/origin"

# Runs a command, and prints its name, seconds, largest memory of one process and exit code.
timed() {
    local name=$1 start end code=0; shift
    start=$(date +%s.%N)
    "$SEEDBED" --quiet --jobs "${JOBS:-64}" "$@" > "$top/out" 2>&1 || code=$?
    end=$(date +%s.%N)
    awk -v n="$name" -v s="$start" -v e="$end" -v c="$code" 'BEGIN { printf "%-28s %8.2f s   exit %d\n", n, e - s, c }'
    [ "$code" = 0 ] || head -5 "$top/out"
    begin=$start
}

# Prints how long after `begin` the last of these files was written.
until_last() {
    local name=$1; shift
    { find "$@" -name '*.json' -printf '%T@\n' 2>/dev/null || true; } | sort -n | tail -1 |
        awk -v n="  $name" -v b="$begin" '{ printf "%-28s %8.2f s\n", n, $1 - b }'
}

parts() {
    local run; run=$(ls -d "$top"/fleet/runs/* | tail -1)
    until_last "observed at" "$top/fleet/observations"
    until_last "plan saved at" "$run/plan"
    until_last "last vote at" "$run/prepare"
    until_last "decided at" "$run/decision.json"
    until_last "last follower at" "$run/resolve"
}

echo "$N hosts, $SESSIONS sessions each, $(nproc) cores"
reached=(--hosts "${hosts#,}" --launcher "$launcher")
if [ -n "${SLURM:-}" ]; then
    export PATH="$top/bin:$PATH"
    reached=(--slurm=--time=30)
fi
timed "apply" fleet apply "$top/fleet" "${reached[@]}" --root "$top/{host}/repository" --yes
parts
du -sb "$top/fleet" | awk '{ printf "%-28s %8.1f MB\n", "  directory of the fleet", $1 / 1e6 }'
timed "status" fleet status "$top/fleet"
timed "apply, nothing to do" fleet apply "$top/fleet" --yes
parts
timed "recover" fleet recover "$top/fleet"
timed "destroy" fleet destroy "$top/fleet" --yes
du -sb "$top/fleet" | awk '{ printf "%-28s %8.1f MB\n", "  directory of the fleet", $1 / 1e6 }'
