"""Sockets of this machine's own services: who reaches one asks for an act or for a secret."""

# ruff: noqa: S108 - patterns of sockets, and no files of ours

import re

from jail.watch.events import Severity

# By the service: how grave a try is, and the path behind `unix:`; `@` begins an abstract name.
LOCAL_SERVICES = {
    # Whoever reaches it is root.
    "containers": (Severity.MEDIUM, r".*(?:docker|containerd|podman|crio|buildkit)[^/]*\.sock"),
    "ssh agent": (Severity.MEDIUM, r"/tmp/ssh-[^/]*/agent\..*|.*/keyring/ssh|.*/ssh-agent[^/]*"),
    "gpg agent": (Severity.MEDIUM, r".*/S\.gpg-agent[^/]*|.*/gnupg/.*"),
    "keyring": (Severity.MEDIUM, r".*/keyring/(?:control|pkcs11)|.*/kwallet.*"),
    "password manager": (Severity.MEDIUM, r".*(?:1password|keepassxc|bitwarden).*"),
    "snaps or systemd": (Severity.MEDIUM, r"/run/snapd.*|/run/systemd/(?:private|notify)"),
    "session bus": (Severity.INFO, r"/run/user/\d+/bus|@/tmp/dbus-.*|/tmp/dbus-.*"),
    "system bus": (Severity.INFO, r"/(?:var/)?run/dbus/system_bus_socket"),
    "screen": (Severity.INFO, r"@?/tmp/\.X11-unix/X\d+|.*/wayland-\d+"),
    "tmux or screen": (Severity.MEDIUM, r"/tmp/tmux-\d+/.*|/run/screen/.*"),
    "editor": (Severity.MEDIUM, r".*/vscode-ipc-.*|.*/nvim\..*"),
}
SERVICE_PATTERNS = [
    (service, severity, re.compile(f"unix:(?:{pattern})", re.IGNORECASE | re.DOTALL))
    for service, (severity, pattern) in LOCAL_SERVICES.items()
]


def service_at(target: str) -> tuple[str, Severity]:
    """The service that a target on this machine is of, "" for none, and how grave a try is."""
    for service, severity, pattern in SERVICE_PATTERNS:
        if pattern.fullmatch(target):
            return service, severity
    return "", Severity.INFO
