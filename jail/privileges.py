# How a process gives up its power before it meets a hostile byte, and how it dies in time.

import ctypes
import os
import re
import resource
import select
import signal
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP = 1, 4, 24
PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
CAPABILITY_VERSION, MAX_MEMORY_BYTES = 0x20080522, 1 << 30

libc = ctypes.CDLL(None, use_errno=True)


# Raises OSError, saying `what` was tried, where a function of libc did not return 0.
def check(result: int, what: str) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


# Be killed when the parent ends, of which `parent` is a pidfd; it may have ended already.
def die_with_parent(parent: int) -> None:
    check(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), "parent-death signal")
    if select.select([parent], [], [], 0)[0]:
        os._exit(1)


# Give up all power for good. Raises OSError, after which the process must not go on.
#
# 1. What is executed from here on gains nothing: the bounding set is emptied.
# 2. Become `user` and `group`; 0 is the only user of a user namespace, who stays.
# 3. Clear every set of capabilities.
# 4. No program gives power back, and nobody of the same user looks into this process.
# 5. Memory is bounded, and a crash does not start the host's helper.
# 6. See in the kernel's own account that it is so.
def drop(user: int, group: int) -> None:
    # 1. The kernel refuses those that it does not know. In a container without SETPCAP it refuses
    #    all; step 4 is enough there.
    for capability in range(64):
        libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    # 2. The groups first: the user has no right to.
    if user:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    # 3. A header (version, process), and two sets of each kind, all empty.
    check(libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient capabilities")
    header, sets = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION), (ctypes.c_uint32 * 6)()
    check(libc.capset(header, sets), "capabilities")
    # 4.
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")
    check(libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0), "not dumpable")
    # 5. Of all limits of core files only 1 keeps the helper from being started.
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    # 6. Lines such as "Uid:\t65534\t65534\t65534\t65534" and "CapEff:\t0000000000000000".
    status = dict(re.findall(r"(\w+):\t(.*)", Path("/proc/self/status").read_text()))
    wanted = {"Uid": [str(user)] * 4, "Gid": [str(group)] * 4, "NoNewPrivs": ["1"]}
    wanted |= {name: ["0" * 16] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")}
    wanted |= {"Groups": []} if user else {}
    for name, words in wanted.items():
        if status[name].split() != words:
            raise PermissionError(f"{name} is {status[name]} after the drop")
