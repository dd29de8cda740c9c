"""What the decoy internet says where the server speaks first: SSH, SMTP, FTP, POP3, IMAP.

Enough of each protocol that a client hands over what it came to hand over. Hostile input: lines.
"""

import re
from dataclasses import dataclass

MAX_DIALOG_LINE_BYTES = 8 << 10
MAX_DIALOG_LINES = 5000  # answered on one connection

# Which protocol a client that waits for a word expects, by the port.
SSH_PORTS = (22, 2222)
SMTP_PORTS = (25, 26, 465, 587, 2525)
FTP_PORTS = (21, 990, 2121)
POP_PORTS = (110, 995)
IMAP_PORTS = (143, 993)


@dataclass(frozen=True)
class Step:
    """An answer to a line that matches, and what comes after it."""

    line: str
    answer: str
    # Answers to the lines that follow, whatever they say.
    then: tuple[str, ...] = ()
    is_message: bool = False  # what follows is a message, up to a line with a dot
    starts_tls: bool = False
    is_end: bool = False


@dataclass(frozen=True)
class Protocol:
    """`greeting` and the first step whose line matches, with {host_commas} filled in, and {tag}:
    the first word of the line.
    """

    greeting: str
    steps: tuple[Step, ...]
    otherwise: str


CAPABILITIES = (
    "250-mail\r\n250-SIZE 35882577\r\n250-STARTTLS\r\n250-AUTH PLAIN LOGIN\r\n250 8BITMIME"
)
ACCEPTED = "235 2.7.0 Authentication successful"
SMTP = Protocol(
    "220 mail ESMTP Postfix",
    (
        Step("EHLO.*", CAPABILITIES),
        Step("HELO.*", "250 mail"),
        Step("STARTTLS", "220 2.0.0 Ready to start TLS", starts_tls=True),
        # "User name:" and "Password:", as they are said in base64.
        Step("AUTH LOGIN", "334 VXNlcm5hbWU6", then=("334 UGFzc3dvcmQ6", ACCEPTED)),
        Step("AUTH LOGIN .+", "334 UGFzc3dvcmQ6", then=(ACCEPTED,)),
        Step("AUTH PLAIN", "334 ", then=(ACCEPTED,)),
        Step("AUTH .*", ACCEPTED),
        Step("DATA", "354 End data with <CR><LF>.<CR><LF>", is_message=True),
        Step("QUIT", "221 2.0.0 Bye", is_end=True),
        Step("(?:MAIL|RCPT|RSET|NOOP|VRFY).*", "250 2.1.0 Ok"),
    ),
    "500 5.5.2 Error: command not recognized",
)
QUEUED = "250 2.0.0 Ok: queued"
FTP = Protocol(
    "220 (vsFTPd 3.0.5)",
    (
        Step("USER.*", "331 Please specify the password."),
        Step("PASS.*", "230 Login successful."),
        Step("AUTH TLS", "234 Proceed with negotiation.", starts_tls=True),
        Step("(?:PBSZ|PROT|TYPE|MODE|STRU|NOOP|OPTS).*", "200 Ok."),
        Step("SYST", "215 UNIX Type: L8"),
        Step("FEAT", "211-Features:\r\n EPSV\r\n PASV\r\n UTF8\r\n211 End"),
        Step("PWD", '257 "/" is the current directory'),
        Step("MKD.*", '257 "/" created'),
        Step("(?:CWD|CDUP|DELE|RMD|RNTO|SITE).*", "250 Ok."),
        Step("RNFR.*", "350 Ready for RNTO."),
        # Any port of this address leads to us.
        Step("PASV", "227 Entering Passive Mode ({host_commas},195,80)."),
        Step("EPSV.*", "229 Entering Extended Passive Mode (|||50000|)."),
        Step("(?:STOR|APPE|STOU).*", "150 Ok to send data.\r\n226 Transfer complete."),
        Step("QUIT", "221 Goodbye.", is_end=True),
    ),
    "550 Failed.",
)
POP = Protocol(
    "+OK ready",
    (
        Step("CAPA", "+OK\r\nUSER\r\nUIDL\r\nSTLS\r\n."),
        Step("STLS", "+OK", starts_tls=True),
        Step("STAT", "+OK 0 0"),
        Step("(?:LIST|UIDL)", "+OK\r\n."),
        Step("(?:USER|PASS|APOP|NOOP|RSET).*", "+OK"),
        Step("QUIT", "+OK", is_end=True),
    ),
    "-ERR",
)
IMAP = Protocol(
    "* OK [CAPABILITY IMAP4rev1 STARTTLS] ready",
    (
        Step(r"\S+ CAPABILITY", "* CAPABILITY IMAP4rev1 STARTTLS\r\n{tag} OK done"),
        Step(r"\S+ STARTTLS", "{tag} OK begin", starts_tls=True),
        Step(r"\S+ (?:SELECT|EXAMINE) .*", "* 0 EXISTS\r\n{tag} OK [READ-WRITE] done"),
        Step(r"\S+ LOGOUT", "* BYE\r\n{tag} OK done", is_end=True),
        Step(r"\S+ (?:AUTHENTICATE|APPEND) .*", "{tag} NO not here"),
        Step(r"\S+ [A-Z]+(?: .*)?", "{tag} OK done"),
    ),
    "* BAD",
)
SSH = Protocol("SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3", (), "")


def protocol_of(port: int, said: bytes) -> Protocol | None:
    """What is spoken at a port where the server speaks first; some clients do not wait for it."""
    if port in SSH_PORTS or said.startswith(b"SSH-"):
        return SSH
    if port in SMTP_PORTS:
        return SMTP
    by_port = {FTP_PORTS: FTP, POP_PORTS: POP, IMAP_PORTS: IMAP}
    return next((by_port[ports] for ports in by_port if port in ports), None)


class Dialog:
    """Our part of a conversation in lines."""

    def __init__(self, protocol: Protocol, host: str) -> None:
        self.protocol = protocol
        self.host = host
        self.rest = b""
        self.expected: list[str] = []
        self.lines = 0
        self.in_message = False
        self.starts_tls = False
        self.is_over = False

    def greet(self) -> bytes:
        return self.line(self.protocol.greeting)

    def line(self, text: str) -> bytes:
        return text.replace("{host_commas}", self.host.replace(".", ",")).encode() + b"\r\n"

    def take(self, data: bytes) -> bytes:
        """The answers to what has come in. SSH is no conversation in lines and gets none."""
        if not self.protocol.steps:
            return b""
        answers = b""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            if self.is_over or self.starts_tls:
                break
            answers += self.answer(line.rstrip(b"\r"))
        if len(self.rest) > MAX_DIALOG_LINE_BYTES and not self.in_message:
            self.is_over = True
        # What was sent before the answer to STARTTLS may have been slipped in by another.
        self.rest = b"" if self.starts_tls else self.rest[:MAX_DIALOG_LINE_BYTES]
        return answers

    def answer(self, line: bytes) -> bytes:
        if self.in_message:
            self.in_message = line != b"."
            return b"" if self.in_message else self.line(QUEUED)
        self.lines += 1
        if self.lines > MAX_DIALOG_LINES:
            self.is_over = True
            return b""
        if self.expected:
            return self.line(self.expected.pop(0))
        said = line.decode("latin-1")
        for step in self.protocol.steps:
            if re.fullmatch(step.line, said, re.IGNORECASE | re.ASCII | re.DOTALL):
                self.expected = list(step.then)
                self.in_message = step.is_message
                self.starts_tls = step.starts_tls
                self.is_over = step.is_end
                tag = said.partition(" ")[0]
                return self.line(step.answer.replace("{tag}", tag))
        return self.line(self.protocol.otherwise)
