"""Looks into another process, as strace shows them: who asks, and into whom. None is served."""

import re

# ptrace(PTRACE_TRACEME) = -1 ENOSYS (Function not implemented) (INJECTED)
# ptrace(PTRACE_ATTACH, 7 /* 11562 in strace's PID NS */) = -1 ENOSYS (...) (INJECTED)
# ptrace(0x1234 /* PTRACE_??? */, 7, NULL, NULL) = ...
PTRACE_REQUEST = re.compile(rb"(PTRACE_[A-Z0-9_]{1,40})?[^,)]*(?:, (\d{1,10}))?")
# process_vm_readv(7 /* 11562 in strace's PID NS */, [{iov_base=0x7f15, iov_len=8}], 1, ...
OTHERS_MEMORY = re.compile(rb"()(\d{1,10})?")


def look_asked(name: bytes, arguments: bytes) -> tuple[str, int]:
    """The call with what it asks for, and the number of the process that it names, 0 for none.

    >>> look_asked(b"ptrace", b"PTRACE_ATTACH, 7) = -1 ENOSYS (...)")
    ('ptrace(PTRACE_ATTACH)', 7)
    """
    is_ptrace = name == b"ptrace"
    match = (PTRACE_REQUEST if is_ptrace else OTHERS_MEMORY).match(arguments)
    request, pid = match.groups() if match else (None, None)
    words = (request or b"another request").decode()
    call = name.decode()
    return f"{call}({words})" if is_ptrace else call, int(pid or 0)
