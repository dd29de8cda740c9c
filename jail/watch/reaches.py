"""Who was reached for: sockets that are connected, bound and sent from, and names that are asked
for.

The trace names an address as strace read it, just before the kernel did: a second thread can have
changed it in between. So nothing is passed over by its name alone, and a result that this name
can't have is told by itself.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from jail.orders import DNS_PORT, INDEX_PORT
from jail.watch.calls import UNFINISHED, Act, Address, Family, Reach, Socket
from jail.watch.events import Connection, NameAsked, Net, is_near
from jail.watch.ledger import Bait, Ledger
from jail.watch.names import Questions
from jail.watch.peers import Named, plain_target
from jail.watch.processes import STRANGER, Process
from jail.watch.python_witness import Said, plain_name
from jail.watch.resolver import MALFORMED, parse_question

MAX_SOCKETS = 200_000
MAX_ASKED = 10_000  # senders of questions that are known
MAX_RESOLVERS = 20  # of one of them

RESOLVER = f"127.0.0.1:{DNS_PORT}"
INDEX = f"127.0.0.1:{INDEX_PORT}"
# The C library asks nscd before it reads /etc/passwd. In the jail there is none.
NSCD, NO_NSCD = "unix:/var/run/nscd/socket", ("ENOENT", "ECONNREFUSED")
# To connect to any address is to connect to this machine.
ANY_ADDRESS = ("0.0.0.0:", "[::]:")
# Only where a route is looked for, and never for this machine.
UNREACHABLE = {"ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN"}
NEVER_NEAR = UNREACHABLE | {"EAFNOSUPPORT"}
NEVER_UNIX = NEVER_NEAR | {"EINPROGRESS", "ETIMEDOUT", "EADDRNOTAVAIL"}
UNKNOWN_PEER = "who it was connected to"
# Those that the kernel gives out, to who asks for any (ip(7): ip_local_port_range). What a thief
# looks for on a machine, a wallet or a debugger say, has a number of its own, and these are none.
GIVEN_PORTS, ANY_PORT = range(32768, 61000), 0


class Reaches:
    """`index`: whether the jail has the index on its loopback. `name_of`: the name that was asked
    for when an address was given for it, if any was.
    """

    def __init__(self, ledger: Ledger, bait: Bait, index: bool) -> None:
        self.ledger, self.bait = ledger, bait
        self.plumbing = {RESOLVER, INDEX} if index else {RESOLVER}
        self.sockets: dict[bytes, Socket] = {}
        self.peers: dict[bytes, str] = {}  # whom the sockets were connected to
        self.named = Named()
        self.asked: dict[str, dict[Process, None]] = {}  # names, and who sent them to a resolver
        self.askers = 0  # among them
        self.asked_elsewhere: dict[str, None] = {}  # names, in questions to another machine
        self.last_asker = STRANGER  # who turned to the resolver last
        self.resolvers: dict[Process, dict[str, None]] = {}  # whom each process turned to
        self.name_of: Callable[[str], str | None] = lambda _: None
        self.bound: set[int] = set()  # ports of this jail
        # Of datagram sockets that were given an address of this machine: nothing is sent by that.
        self.given: dict[bytes, Address] = {}

    def make(self, call: Socket) -> None:
        """Remember a socket."""
        if len(self.sockets) < MAX_SOCKETS:
            self.sockets[call.inode] = call

    def reach(self, process: Process, call: Reach) -> None:
        """Tell whom a call reached for, and search what it sent."""
        if call.is_cut:
            self.ledger.tell_cut(process, call.act)
        known = self.sockets.get(call.inode)
        self.named.take(call, known)
        what = contradiction(call, known)
        if what:
            self.ledger.tell_contradiction(process, what)
        for address in call.addresses:
            if address.target:
                self.reach_address(process, call, address)
        if call.payloads and call.inode in self.given:
            self.reach_address(process, call, self.given.pop(call.inode))
        if not process.own:
            for data in call.payloads:
                self.send(process, call, data)

    def reach_address(self, process: Process, call: Reach, address: Address) -> None:
        target, listens = address.target, call.act is Act.BIND
        if call.act is Act.CONNECT and (call.inode in self.peers or len(self.peers) < MAX_SOCKETS):
            self.peers[call.inode] = plain_target(target)
        if target == RESOLVER:
            self.last_asker = process
        if address.port == str(DNS_PORT):
            self.note_resolver(process, target)
        if listens and address.port and not call.error and len(self.bound) < MAX_SOCKETS:
            self.bound.add(int(address.port))
        self.ledger.count_failure(process, target, call.error)
        if self.is_passed_over(call, target):
            return
        net = self.net(call, address)
        # The C library sorts a server's own addresses so.
        is_given = call.act is Act.CONNECT and net is Net.UDP and is_near(target)
        if is_given and len(self.given) < MAX_SOCKETS:
            self.given[call.inode] = address
            return
        key = (Connection, process.number, net, target, listens, call.error)
        if self.ledger.has(key):
            return
        # The C library looks by such datagrams which of its own addresses comes first.
        is_any = not listens and target.startswith(ANY_ADDRESS)
        is_far = not is_near(target) and not is_any
        # Python may have been given a host by name: a name that was asked for, or this machine's.
        name = self.name_of(target.rpartition(":")[0].strip("[]"))
        twins = [target, f"{name}:{address.port}"] if name else [target]
        if listens or not is_far:
            twins = [target, f":{address.port}"]
        place = self.ledger.account.place(Said.ADDRESS, [process.jail_pid], twins)
        actor = self.ledger.actor(process, place, expected=is_far)
        # A requirement by URL leads pip itself astray: nothing but its index is its own to ask.
        actor = replace(actor, own=actor.own and not is_far)
        shown = plain_target(target) if is_far else target
        is_inside = not is_far and not listens and self.is_bound(call, address)
        event = Connection(net, shown, listens, call.error, actor, is_inside)
        self.ledger.tell_once(key, process, event)

    def is_bound(self, call: Reach, address: Address) -> bool:
        """Whether the jail's own processes listen at a port of this machine: the kernel gave it to
        them, and somebody answers there.
        """
        port = int(address.port or ANY_PORT)
        is_answered = call.error in (None, "EINPROGRESS", UNFINISHED)
        return is_answered and port in GIVEN_PORTS and not self.bound.isdisjoint((port, ANY_PORT))

    def note_resolver(self, process: Process, target: str) -> None:
        """Remember whom a process turned to."""
        if process in self.resolvers or len(self.resolvers) < MAX_ASKED:
            known = self.resolvers.setdefault(process, {})
            if len(known) < MAX_RESOLVERS:
                known[target] = None

    def is_passed_over(self, call: Reach, target: str) -> bool:
        """Whether it is the jail's own plumbing, and came to what that comes to."""
        if call.act is Act.BIND:
            return False
        return target in self.plumbing or (target == NSCD and call.error in NO_NSCD)

    def net(self, call: Reach, address: Address) -> Net:
        if call.act is Act.BIND or address.family is Family.UNIX:
            return Net.OTHER
        socket = self.sockets.get(call.inode)
        return Net.UDP if socket and socket.is_datagram else Net.TCP

    def send(self, process: Process, call: Reach, data: bytes) -> None:
        # Bytes 4 and 5 of a DNS message count its questions.
        question = parse_question(data) if data[4:6] == b"\0\1" else MALFORMED
        if question is MALFORMED:
            known = self.peers.get(call.inode, UNKNOWN_PEER)
            target = plain_target(call.addresses[-1].target) if call.addresses else known
            self.bait.search("packet to", target, data, self.ledger.actor(process))
            return
        elsewhere = any(
            address.port == str(DNS_PORT) and not is_near(address.target)
            for address in call.addresses
        )
        self.ask(process, question.name, elsewhere)

    def ask(self, process: Process, name: str, elsewhere: bool) -> None:
        """A name was sent to our resolver, which tells it, too, or `elsewhere`."""
        senders = self.asked.setdefault(name, {}) if self.askers < MAX_ASKED else {}
        if process not in senders:
            senders[process] = None
            self.askers += 1
        if elsewhere:
            if len(self.asked_elsewhere) < MAX_ASKED:
                self.asked_elsewhere[name] = None
            plain = name.replace(".", "").encode()
            self.bait.search("DNS name", name[:200], plain, self.ledger.actor(process))

    def tell_names(self, questions: Mapping[str, Questions]) -> None:
        """Tell the names that were asked for: of those in `questions` our resolver knows more."""
        elsewhere: dict[str, Questions | None] = dict.fromkeys(self.asked_elsewhere)
        for name, known in {**elsewhere, **questions}.items():
            kinds = tuple(known.kinds) if known else ()
            at_sec = known.at_sec if known else None
            place = self.ledger.account.place(Said.NAME, [0], [plain_name(name)])
            senders = self.asked.get(name)
            # Python asks for the names of numbers by the number.
            expected = bool(senders) and not name.endswith(".arpa")
            for process in senders or [self.last_asker]:
                # Who writes the question himself says whom he asks, and not for what.
                resolvers = self.resolvers.get(process, {})
                asks_at = self.ledger.account.place(Said.ADDRESS, [process.jail_pid], resolvers)
                actor = self.ledger.actor(process, place or asks_at, expected=expected)
                is_answered = known is not None and known.is_answered
                event = NameAsked(name, replace(actor, own=False), kinds, is_answered)
                key = (NameAsked, process.number, name)
                self.ledger.tell_once(key, process, event, at_sec)


def contradiction(call: Reach, socket: Socket | None) -> str | None:
    """What a call came to, if that can't come of what strace was shown; else None.

    connect(unix:/var/run/nscd/socket) = ENETUNREACH: there was a route to be looked for.
    """
    # Nothing leaves by it.
    if call.act is Act.BIND:
        return None
    result = call.error or "success"
    if call.is_unread:
        return f"{call.act} with an address that can't be read: {result}"
    is_all_near = all(is_near(address.target) for address in call.addresses)
    if call.is_short and call.addresses and is_all_near:
        return f"{call.act} to this machine: messages were left unsent"
    for address in call.addresses:
        what = contradiction_of(address, call.error, socket)
        if what:
            return f"{call.act} {what}: {result}"
    return None


def contradiction_of(address: Address, error: str | None, socket: Socket | None) -> str | None:
    """What is wrong about one address of a call that came to `error`; else None."""
    target, family = address.target, address.family
    is_other = socket is not None and socket.family is not family
    if socket and is_other and family is not Family.UNSPEC:
        return f"to {target or family} with a socket of the family {socket.family}"
    if target == NSCD and error is None:
        return f"to {target}, which is not there"
    if not target:
        return f"to the family {family}" if error in UNREACHABLE else None
    never = NEVER_UNIX if family is Family.UNIX else NEVER_NEAR
    return f"to {target}" if is_near(target) and error in never else None
