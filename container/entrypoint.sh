#!/bin/sh
# Prepares the container, then starts the service: cgroups for the jails, the outer wall, the addresses it lets through.
# What the runtime forbids is named together with the option that allows it. As process 1 it passes the signal to stop
# on, and buries the orphans that killed jails leave, so that no --init is needed.
set -euf
HERE=$(dirname "$0")
RUN=/run/snakehook

note() { echo "snakehook: $*" >&2; }
stop() { code=$1; shift; note "$*"; exit "$code"; }

# has N: capability N is in effect (12 NET_ADMIN, 21 SYS_ADMIN)
has() { [ $((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> $1 & 1)) = 1 ]; }

privileges() {
    missing=
    [ "$(id -u)" = 0 ] || stop 3 "only root can make the jails' namespaces. Leave out: --user"
    # these settings exist only in the host's own network namespace
    [ ! -e /proc/sys/net/core/netdev_max_backlog ] || stop 3 "the wall would close the host's own network. Leave out: --network host"
    [ -w /etc/hosts ] || stop 3 "/etc/hosts must be writable: the wall pins its addresses there. Leave out: --read-only"
    has 12 || missing=" --cap-add NET_ADMIN"
    has 21 || missing="$missing --cap-add SYS_ADMIN"
    [ -z "$missing" ] || stop 3 "the runtime withholds what the sandbox and its wall need. Add:$missing"
    mkdir -p $RUN/root
    # in a mount namespace of their own, so that nothing is left behind
    unshare --mount mount -t tmpfs -o size=1m none $RUN/root 2>/dev/null ||
        stop 3 "the runtime forbids mounts ($(cat /proc/self/attr/current 2>/dev/null || true)). Add: --security-opt apparmor=unconfined --security-opt seccomp=unconfined"
    # shellcheck disable=SC2016
    unshare --mount sh -c 'mount -t tmpfs -o size=1m none "$1" && cd "$1" && mkdir old && pivot_root . old' sh $RUN/root 2>/dev/null ||
        stop 3 "the runtime's seccomp profile forbids pivot_root. Add: --security-opt seccomp=unconfined"
}

# What the service would complain of, and what is required, in one message. Sets `hosts` to what the settings name.
settings() {
    bad=
    if [ "$1" = serve ]; then
        [ -n "${API_TOKEN:-}" ] || { bad=1; note "API_TOKEN is required: add -e API_TOKEN=... (or --env-file)."; }
        [ -n "${DISCORD_WEBHOOK_URL:-}" ] || { bad=1; note "DISCORD_WEBHOOK_URL is required: add -e DISCORD_WEBHOOK_URL=... (or --env-file)."; }
    fi
    for url in "PIP_INDEX_URL ${PIP_INDEX_URL:-}" "DISCORD_WEBHOOK_URL ${DISCORD_WEBHOOK_URL:-}"; do
        # the value may be a secret: it is not repeated
        case $url in *' ' | *' https://'*) ;; *) bad=1; note "${url%% *} must begin with https://: the wall lets nothing else through." ;; esac
    done
    code=0
    hosts=$(snakehook hosts) || code=$?
    for host in $hosts; do
        case $host in *:443) ;; *:*) bad=1; note "$host: the wall lets port 443 through and no other." ;; esac
    done
    [ -z "$bad" ] || exit 2
    [ "$code" = 0 ] || exit "$code"
}

# Lets the service make groups for the jails. Without them, rlimits and the deadline still bound each process.
cgroups() {
    base=/sys/fs/cgroup
    if [ -f $base/cgroup.controllers ]; then
        # v2: a group that gives controllers to its children may hold no process, so those here move down one level
        grep -qx '0::/' /proc/self/cgroup && mount -o remount,bind,rw $base && mkdir -p $base/service &&
            while read -r pid; do echo "$pid" >$base/service/cgroup.procs || true; done <$base/cgroup.procs &&
            echo '+memory +pids' >$base/cgroup.subtree_control && return
    else
        mount -o remount,bind,rw $base/pids && mount -o remount,bind,rw $base/memory && return
    fi 2>/dev/null
    note "no cgroups for the jails here: memory and processes are limited by rlimits. On cgroup v2 add: --cgroupns private"
}

# elements SET < addresses: the nft line that puts them into the set
elements() { list=$(paste -sd, -); [ -z "$list" ] || echo "add element inet snakehook $1 { $list }"; }
both() { grep -v : "$2" | elements "${1}4"; grep : "$2" | elements "${1}6"; }

wall() {
    {
        echo "${DNS_RESOLVERS:-1.1.1.1,8.8.8.8}" | tr -s ', ' '\n'
        sed -n 's/^nameserver[[:space:]]*\([^%[:space:]]*\).*/\1/p' /etc/resolv.conf
        # Docker's own resolver passes questions on from inside the container, to the servers that it notes here
        sed -n 's/^# ExtServers: \[\(.*\)\].*/\1/p' /etc/resolv.conf | tr -c '0-9a-f.:\n' '\n' | grep '[.:]'
    } | sort -u | sed '/^$/d' >$RUN/resolvers
    sed '/# snakehook$/d' /etc/hosts >$RUN/hosts # the operator's own lines; ours, of an earlier start, go
    : >$RUN/pinned
    { cat "$HERE/egress.nft"; both resolvers $RUN/resolvers; } | nft -f - || stop 3 "nft could not raise the wall (does the kernel have nf_tables?)"
}

# addresses HOST: the operator's line in /etc/hosts, else DNS, else what was known (DNS may be silent for a while)
addresses() {
    { awk -v h="$1" '/^[^#]/ { for (i = 2; i <= NF; i++) if ($i == h) print $1 }' $RUN/hosts | grep . ||
        getent -s dns ahosts "$1" | awk '{ print $1 }' | grep . ||
        awk -v h="$1" '$2 == h { print $1 }' $RUN/pinned; } | sort -u
}

# Address first into the wall, then into /etc/hosts: the service, which looks there first, can never meet an address
# that the wall does not know yet. The addresses before stay for one more round, for connections about to be made.
refresh() {
    for host in $1; do
        host=${host%:443}
        # some of the names come from the index: nothing but a host name goes further
        case $host in *[!A-Za-z0-9._-]*) note "neither a host name nor on port 443, left out"; continue ;; esac
        addresses "$host" | sed "s/\$/ $host # snakehook/" | grep . || note "no address for $host yet"
    done >$RUN/new
    cat $RUN/new $RUN/pinned | cut -d' ' -f1 | sort -u >$RUN/allowed
    { echo 'flush set inet snakehook hosts4'; echo 'flush set inet snakehook hosts6'; both hosts $RUN/allowed; } | nft -f - || return
    cmp -s $RUN/new $RUN/pinned && return
    # in place: the runtime mounts this very file
    cat $RUN/hosts $RUN/new >$RUN/etc-hosts && cat $RUN/etc-hosts >/etc/hosts && cp $RUN/new $RUN/pinned
}

# The index's file hosts stand on its own page, read through the wall; until that succeeds, ask again each round.
all=
round() {
    if [ -z "$all" ]; then
        refresh "$hosts" || true
        all=$(snakehook hosts --index) || note "the index's file hosts are not known yet"
    fi
    refresh "${all:-$hosts}" || note "the wall could not be refreshed"
}

trap 'exit 143' TERM INT # process 1 would ignore both
privileges
settings "${1:-serve}"
cgroups
wall
round
[ "${1:-serve}" = serve ] || exec snakehook "$@"
while sleep "${EGRESS_REFRESH_SEC:-30}"; do round; done &
# a shell starts what runs in the background with SIGINT ignored
env --default-signal=INT,QUIT snakehook "$@" &
service=$!
trap 'kill -TERM $service' TERM INT
while :; do
    code=0
    wait $service || code=$?
    kill -0 $service 2>/dev/null || exit $code # else it was only the signal that ended the wait
done
