"""Calls that strace could not read whole, and the kernel could: where they led is not known."""

import re

from jail.watch.calls import UNFINISHED

# What strace can't read:
# connect(4<...>, 0x1000, 16)
# sendto(4<...>, "\x78", 1, 0, 0x1000, 16)
# sendmsg(4<...>, 0x1000, 0)
# sendmsg(4<...>, {msg_name=0x1000, msg_namelen=16, msg_iov=[{iov_base=0x1000, iov_len=1}], ...
# but not what is of no length: sendto(4<...>, 0x1000, 0, 0, NULL, 0)
UNREAD = re.compile(
    rb"^[^,]*, 0x[0-9a-f]+, (?!0,)"
    rb"|, 0x[0-9a-f]+, [1-9]\d*\)"
    rb"|msg_name=0x"
    rb"|iov_base=0x[0-9a-f]+, iov_len=[1-9]"
)
# What the kernel may answer without having read it, either.
UNREAD_ERRORS = {
    *("EFAULT", "EBADF", "ENOTSOCK", "EINVAL", "EOPNOTSUPP", "EISCONN", "ENOTCONN", "EPIPE"),
    UNFINISHED,
}


def reach_is_unread(text: bytes, error: str | None) -> bool:
    """Whether the arguments of a connect, bind or send stand there as an address in memory only.

    >>> reach_is_unread(b"4, 0x1000, 16) = 0", None)
    True
    """
    # The first look is quick.
    return b"0x" in text and error not in UNREAD_ERRORS and bool(UNREAD.search(text))
