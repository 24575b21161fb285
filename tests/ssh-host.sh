#!/bin/sh
# Runs an sshd as the first process of a host of its own, for tests: with its own processes, name, network, users and /run.
# Nothing outside is changed, and all of it ends with this process. Needs root.
#
#   unshare --mount --propagation slave --uts --pid --fork --kill-child --mount-proc ssh-host.sh NAME DIRECTORY
#
# DIRECTORY has `sshd_config`, and is the home of root. The script `enter NAME` there runs the commands.
set -eu
name=$1 directory=$2

hostname "$name"
mount -t tmpfs tmpfs /run
mkdir /run/sshd
# sshd listens outside of the host's network, so that it can be reached without addresses; commands run inside.
: > /run/net
unshare --net=/run/net ip link set lo up
for file in passwd shadow; do
    sed '/^root:/d' "/etc/$file" > "/run/$file"
done
echo "root:x:0:0:root:$directory:/bin/sh" >> /run/passwd
echo 'root:*:19000:0:99999:7:::' >> /run/shadow
for file in passwd shadow; do
    mount --bind "/run/$file" "/etc/$file"
done
exec "$(PATH="$PATH:/usr/sbin" command -v sshd)" -D -e -f "$directory/sshd_config"
