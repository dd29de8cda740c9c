#!/bin/sh
# Prepares the container, then starts the service: cgroups for the jails, the outer wall, the
# addresses it lets through. What the runtime forbids is named together with the option that allows
# it. As process 1 it passes the signal to stop on, and reaps the orphans that killed jails leave,
# so that no --init is needed.
set -euf
RUN=/run/snakehook
# Who the service is, and who a watch is: see egress.nft.
SERVICE=${SERVICE_USER:-65533}
WATCH=${NSJAIL_USER:-65534}
# What root needs here, with the number of each capability. CHOWN, DAC_OVERRIDE: the volumes belong
# to the users that work in them. KILL, SETGID, SETUID: it becomes those users, and ends what they
# do. SETFCAP: strace gets a user namespace with root in it. NET_ADMIN, NET_BIND_SERVICE: the wall,
# the jails' loopback with a resolver on it. SYS_ADMIN: namespaces, mounts, cgroups.
CAPABILITIES="CHOWN:0 DAC_OVERRIDE:1 KILL:5 SETGID:6 SETUID:7 NET_BIND_SERVICE:10"
CAPABILITIES="$CAPABILITIES NET_ADMIN:12 SYS_ADMIN:21 SETFCAP:31"

note() { echo "snakehook: $*" >&2; }
stop() { code=$1; shift; note "$*"; exit "$code"; }

# has N: capability N is in effect
has() { [ $((0x$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) >> $1 & 1)) = 1 ]; }

privileges() {
    [ "$(id -u)" = 0 ] || stop 3 "only root can make the jails' namespaces. Leave out: --user"
    # these settings exist only in the host's own network namespace
    [ ! -e /proc/sys/net/core/netdev_max_backlog ] ||
        stop 3 "the wall would close the host's own network. Leave out: --network host"
    [ -w /etc/hosts ] ||
        stop 3 "/etc/hosts must be writable: the wall pins its addresses there." \
            "Leave out: --read-only"
    missing=
    for capability in $CAPABILITIES; do
        has "${capability#*:}" || missing="$missing --cap-add ${capability%:*}"
    done
    [ -z "$missing" ] ||
        stop 3 "the runtime withholds what the sandbox and its wall need. Add:$missing"
    mkdir -p $RUN/root
    # as nsjail will do it; in a mount namespace of its own, so that nothing is left behind
    try="mount -t tmpfs none $RUN/root && cd $RUN/root && mkdir old && pivot_root . old"
    said=$(unshare --mount sh -c "$try" 2>&1) ||
        stop 3 "the runtime forbids what a jail is made with ($said). Add:" \
            "--security-opt seccomp=unconfined, and where AppArmor is on" \
            "--security-opt apparmor=unconfined"
}

# All that is wrong with the settings, at once. Sets `hosts` to what they name, `webhook` to the
# host that is no index.
settings() {
    bad=
    [ "$1" != serve ] || for name in API_TOKEN DISCORD_WEBHOOK_URL; do
        [ -n "$(printenv $name)" ] && continue
        bad=2
        note "$name is required. Add: -e $name=... (or --env-file)"
    done
    hosts=$(snakehook hosts) || bad=$?
    others=$(env -u DISCORD_WEBHOOK_URL snakehook hosts 2>/dev/null) || true
    webhook=$(echo "$hosts" | grep -vxF "$others") || true
    for host in $(echo "$hosts" | grep -v ':443$'); do
        bad=2
        note "$host: the wall lets through https:// on port 443 and no other."
    done
    [ -z "$bad" ] || exit "$bad"
}

# Lets the service make groups for the jails. Without them, rlimits and the deadline still bound
# each process.
cgroups() {
    base=/sys/fs/cgroup
    if [ -f $base/cgroup.controllers ]; then
        # v2: a group that gives controllers to its children may hold no process, so those here move
        # down one level
        grep -qx '0::/' /proc/self/cgroup && mount -o remount,bind,rw $base &&
            mkdir -p $base/service &&
            while read -r pid; do
                echo "$pid" >$base/service/cgroup.procs || true
            done <$base/cgroup.procs &&
            echo '+memory +pids' >$base/cgroup.subtree_control && return
    else
        mount -o remount,bind,rw $base/pids && mount -o remount,bind,rw $base/memory && return
    fi 2>/dev/null
    note "no cgroups for the jails here: memory and processes are limited by rlimits." \
        "On cgroup v2 add: --cgroupns private"
}

# fill SET < addresses: what replaces the addresses in the sets of both families, in nft's words
fill() {
    echo "flush set inet snakehook ${1}4; flush set inet snakehook ${1}6"
    sed -e "s/^[^:]*\$/add element inet snakehook ${1}4 { & }/" \
        -e "s/^.*:.*\$/add element inet snakehook ${1}6 { & }/"
}

wall() {
    # the operator's own lines; ours, of an earlier start, go
    sed '/# snakehook$/d' /etc/hosts >$RUN/hosts
    : >$RUN/pinned
    {
        echo "${DNS_RESOLVERS:-1.1.1.1,8.8.8.8}" | tr -s ', ' '\n'
        sed -n 's/^nameserver[[:space:]]*\([^%[:space:]]*\).*/\1/p' /etc/resolv.conf
        # Docker's own resolver passes questions on from inside the container, to the servers that
        # it notes here
        sed -n 's/^# ExtServers: \[\(.*\)\].*/\1/p' /etc/resolv.conf |
            tr -c '0-9a-f.:\n' '\n' | grep '[.:]'
    } | sed '/^$/d' | fill resolvers | cat "${0%/*}/egress.nft" - |
        nft --define "service=$SERVICE" --define "watch=$WATCH" -f - ||
        stop 3 "nft could not raise the wall (does the kernel have nf_tables?)"
}

# known_host HOST: the operator's line in /etc/hosts
known_host() {
    awk -v h="$1" '/^[^#]/ { for (i = 2; i <= NF; i++) if ($i == h) print $1 }' $RUN/hosts
}

# ask_dns HOST: as the service, since root gets nothing through the wall
ask_dns() {
    setpriv --no-new-privs --reuid "$SERVICE" --regid "$SERVICE" --clear-groups \
        getent -s dns ahosts "$1" |
        awk '{ print $1 }'
}

# addresses HOST: the operator's, else DNS's, else what was known (DNS may be silent for a while)
addresses() {
    { known_host "$1" | grep . || ask_dns "$1" | grep . ||
        awk -v h="$1" '$2 == h { print $1 }' $RUN/pinned; } | sort -u
}

# Address first into the wall, then into /etc/hosts: the service, which looks there first, can never
# meet an address that the wall does not know yet. The addresses before stay for one more round, for
# connections about to be made.
refresh() {
    for host in $1; do
        # some of the names come from the index: nothing but a host name goes further
        host=${host%:443}
        case $host in *[!A-Za-z0-9._-]*)
            note "neither a host name nor on port 443, left out"
            continue
            ;;
        esac
        addresses "$host" | sed "s/\$/ $host # snakehook/" | grep . ||
            note "no address for $host yet"
    done >$RUN/new
    cat $RUN/new $RUN/pinned >$RUN/known
    {
        cut -d' ' -f1 $RUN/known | fill hosts
        grep -vF " ${webhook%:443} " $RUN/known | cut -d' ' -f1 | fill index
    } | nft -f - || return
    cmp -s $RUN/new $RUN/pinned && return
    # in place: the runtime mounts this very file
    cat $RUN/hosts $RUN/new >$RUN/etc-hosts && cat $RUN/etc-hosts >/etc/hosts &&
        cp $RUN/new $RUN/pinned
}

# The index's file hosts stand on its own page, read through the wall; until that succeeds, ask
# again each round.
round() {
    [ -n "$all" ] || { refresh "$hosts" && all=$(snakehook hosts --index); } ||
        note "the index's file hosts are not known yet"
    refresh "${all:-$hosts}" || note "the wall could not be refreshed"
}

trap 'exit 143' TERM INT # process 1 would ignore both
privileges
settings "${1:-serve}"
cgroups
wall
all=
round
while sleep "${EGRESS_REFRESH_SEC:-30}" || sleep 30; do round; done &
# a shell starts what runs in the background with SIGINT ignored
env --default-signal=INT,QUIT snakehook "$@" &
service=$!
trap 'kill -TERM $service' TERM INT
while wait $service; code=$?; kill -0 $service 2>/dev/null; do :; done # a signal ends the wait, too
exit $code
