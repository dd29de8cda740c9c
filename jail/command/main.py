# The commands that people type: triage, check and hosts here, samples and report in rooms of their
# own. No service loads this room.
#
# A command takes the same way as the service: settings, keeper, root given up, then an order and
# the stream of its watch. All of that is snakehook.py's; here it is only asked for and printed. As
# root, nothing but the start of keeper and the files of --html and --dropped is done with root's
# rights.

import argparse
import json
import os
import re
import secrets
import signal
import socket
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import snakehook
from jail.command.drafts import command_report
from jail.command.in_hand import InHand
from jail.command.kept import command_samples
from snakehook import (
    EXIT_OK,
    EXIT_USAGE,
    Delivery,
    KeeperLink,
    Result,
    ServiceError,
    Settings,
    TriageRequest,
)

EXIT_FOUND, EXIT_SANDBOX, EXIT_OTHER, EXIT_INTERRUPTED = 1, 3, 4, 130
INTERRUPT_SEC = 20.0  # what a run that is told to stop may take for its report
CONNECT_SEC = 10.0
HOST = snakehook.SETTINGS["kinds"]["hosts"]["pattern"]
TRIAGE_MODES = snakehook.FIELDS["mode"]["pattern"].split("|")
HOSTS_REQUEST = TriageRequest("pip", "0", "install")  # an order has these, whatever its task


# What is in the way of a command, and what it exits with then.
class CommandError(Exception):
    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


# What keeper found at its start. Raises CommandError where it has ended.
def check_sandbox(keeper: KeeperLink) -> dict[str, Any]:
    try:
        return keeper.self_check()
    except ServiceError as error:
        raise CommandError(str(error), EXIT_SANDBOX) from None


# The hosts of the index's files, for the rules of a firewall; a watch without privilege asks.
# Raises CommandError.
def ask_index(keeper: KeeperLink, settings: Settings) -> list[str]:
    run_id = secrets.token_hex(16)
    budget_sec = settings.run_timeout_sec
    with keeper.order("hosts", run_id, HOSTS_REQUEST) as stream:
        result = snakehook.receive_result(
            stream, run_id, HOSTS_REQUEST, budget_sec, snakehook.log.debug
        )
    if result.outcome != "ok":
        raise CommandError(result.reason, EXIT_OTHER)
    return [host for host in result.text.split() if re.fullmatch(HOST, host)]


# Host and port of an address.
def end_of(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or snakehook.PORTS[parts.scheme]


def print_check(name: str, passed: bool, detail: str) -> None:
    print(snakehook.check_line(name, passed, False, detail))


def check_index(keeper: KeeperLink, settings: Settings, index_url: str) -> None:
    try:
        hosts = ask_index(keeper, settings)
    except CommandError as error:
        print_check("index", False, str(error))
    else:
        print_check("index", True, f"{index_url}, files from {', '.join(hosts)}")


def check_webhook(url: str) -> None:
    host, port = end_of(url)
    try:
        socket.create_connection((host, port), CONNECT_SEC).close()
    except OSError as error:
        text = f"{host} can't be reached ({error}): look at the network."
        print_check("webhook", False, text)
    else:
        print_check("webhook", True, f"{host} answers")


def command_check(_: argparse.Namespace) -> int:
    """what works on this machine, and what to do about the rest"""
    settings = snakehook.settings_of_environment()
    keeper = snakehook.start_keeper(settings)
    found = check_sandbox(keeper)
    print(*found["lines"], sep="\n")
    if found["works"]:
        check_index(keeper, settings, found["index_url"])
    if settings.discord_webhook_url:
        check_webhook(settings.discord_webhook_url)
    return EXIT_OK if found["works"] else EXIT_SANDBOX


def command_hosts(arguments: argparse.Namespace) -> int:
    """what the service must reach, for a firewall"""
    settings = snakehook.settings_of_environment()
    # Which index is pip's own default, keeper knows from pip.
    keeper = snakehook.start_keeper(settings)
    found = check_sandbox(keeper)
    index_url = settings.pip_index_url or found["index_url"]
    can_ask = found["works"] or not arguments.index
    if not index_url or not can_ask:
        raise CommandError("\n".join(found["lines"]), EXIT_SANDBOX)
    hosts = ask_index(keeper, settings) if arguments.index else settings.index_file_hosts
    urls = [index_url, *(f"{urlsplit(index_url).scheme}://{host}" for host in hosts)]
    if settings.discord_webhook_url:
        urls.append(settings.discord_webhook_url)
    ends = {f"{host}:{port}" for host, port in map(end_of, urls)}
    print(*sorted(ends), sep="\n")
    return EXIT_OK


def timestamp() -> str:
    return datetime.now(UTC).isoformat()


def print_progress(title: str) -> None:
    print(f"{title} ...", file=sys.stderr, flush=True)


def on_signal(handler: Any) -> None:
    for number in snakehook.END_SIGNALS:
        signal.signal(number, handler)


# Detonate; SIGINT and SIGTERM ask for the report of what was seen so far.
def run_here(
    keeper: KeeperLink, budget_sec: int, run_id: str, request: TriageRequest, *files: int
) -> Result:
    with keeper.order("triage", run_id, request, *files) as stream:

        def interrupt(*_: object) -> None:
            on_signal(signal.SIG_IGN)
            stream.shutdown(socket.SHUT_WR)
            # For a watch that does not stop.
            snakehook.start_timer(INTERRUPT_SEC, snakehook.shut, stream)

        on_signal(interrupt)
        return snakehook.receive_result(stream, run_id, request, budget_sec, print_progress)


# Once, if there is a webhook: nobody is here who would try again.
def deliver_here(settings: Settings, run_id: str, result: Result) -> Delivery:
    url = settings.discord_webhook_url
    if not url:
        return Delivery("refused", 0, "no webhook is configured")
    run = {"run_id": run_id} | result._asdict()
    delivery, *_ = snakehook.deliver(url, run, Delivery("pending", 1))
    if delivery.state == "delivered":
        return delivery
    print(f"Not delivered to Discord: {delivery.last_error}.", file=sys.stderr)
    return delivery._replace(state="refused")


# The file that is named in the place of a project; the request gets what its name says.
def file_in_hand(given: dict[str, str], settings: Settings) -> InHand:
    if "artifact" in given:
        raise ServiceError("--artifact goes with NAME and VERSION: a file in hand is the artifact.")
    file = InHand(given["package_name"], settings.max_download_bytes)
    given |= file.release()
    return file


def command_triage(arguments: argparse.Namespace) -> int:
    """one run, here and now"""
    settings = snakehook.settings_of_environment()
    named = {name: getattr(arguments, name) for name in snakehook.FIELDS}
    given = {name: text for name, text in named.items() if text is not None}
    files = [] if "version" in given else [file_in_hand(given, settings)]
    request = snakehook.validate(given, settings)
    keeper = snakehook.start_keeper(settings)
    for file in files:
        file.demand_archive()
    found = check_sandbox(keeper)
    if not found["works"]:
        raise CommandError("\n".join(found["lines"]), EXIT_SANDBOX)
    run_id, started_at = secrets.token_hex(16), timestamp()
    fds = [file.fd for file in files]
    result = run_here(keeper, settings.run_budget_sec, run_id, request, *fds)
    head: dict[str, Any] = {"verdict": result.verdict, "run_id": run_id, "status": "finished"}
    head |= {"request": request._asdict(), "outcome": result.outcome, "reason": result.reason}
    head |= {"submitted_at": started_at, "started_at": started_at}
    head |= {"finished_at": timestamp()}
    delivery = deliver_here(settings, run_id, result)._asdict()
    head["delivery"] = {name: delivery[name] for name in ("state", "attempts", "last_error")}
    shown = result.text
    if arguments.json:
        shown = snakehook.join_report(json.dumps(head), result.report).decode()
    # Whatever the locale can't show.
    print(shown.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding))
    with arguments.html as page_file:
        page_file.write(result.page)
    with arguments.dropped as dropped_file:
        dropped_file.write(result.dropped)
    if result.verdict == "high":
        return EXIT_FOUND
    return EXIT_OK if result.outcome == "ok" else EXIT_OTHER


# Only reached where this folder was started by itself. The service is a fresh program, which has
# nothing of this room in its memory.
def command_serve(_: argparse.Namespace) -> int:
    """the HTTP service"""
    os.execv(sys.executable, [sys.executable, str(snakehook.__file__), *sys.argv[1:]])


COMMANDS = (
    command_triage,
    command_check,
    command_hosts,
    command_samples,
    command_report,
    command_serve,
)


def main() -> int:
    parser = argparse.ArgumentParser("snakehook", description="Detonate a package in a sandbox.")
    commands, made = parser.add_subparsers(required=True), {}
    for run in COMMANDS:
        name = run.__name__.removeprefix("command_")
        made[name] = commands.add_parser(name, help=run.__doc__)
        made[name].set_defaults(run=run)
    triage = made["triage"]
    triage.add_argument("package_name", metavar="NAME", help="or FILE, a wheel or an sdist")
    triage.add_argument("version", metavar="VERSION", nargs="?", help="exact; none with a FILE")
    about = f"what to run after the installation: {', '.join(TRIAGE_MODES)}"
    triage.add_argument("--mode", choices=TRIAGE_MODES, metavar="M", help=about)
    triage.add_argument("--artifact", metavar="KIND", help="wheel, sdist or the name of a file")
    for name in ("file_path", "entrypoint", "module_name"):
        flag, mode = f"--{name.replace('_', '-')}", snakehook.FIELDS[name]["mode"]
        triage.add_argument(flag, metavar=name[0].upper(), help=f"what to run, with mode {mode}")
    triage.add_argument("--json", action="store_true", help="print the report as JSON")
    # Opened at once, with the rights of who started us.
    for flag, text in (("--html", "and as a page"), ("--dropped", "what it left behind")):
        kind = argparse.FileType("wb")
        triage.add_argument(flag, type=kind, metavar="FILE", default=os.devnull, help=text)
    samples = made["samples"]
    samples.add_argument("name", metavar="NAME", nargs="?")
    samples.add_argument("version", metavar="VERSION", nargs="?")
    samples.add_argument("--to", metavar="FOLDER", help="copy them out as <sha256>.sample")
    report = made["report"]
    report.add_argument("source", metavar="RUN_ID", help="or FILE, what triage --json has printed")
    report.add_argument("--osv", action="store_true", help="a draft for a database of malware")
    report.add_argument("--indicators", action="store_true", help="what to look for elsewhere")
    report.add_argument("--json", action="store_true", help="of --indicators, not defanged")
    made["hosts"].add_argument("--index", action="store_true", help="and those that it names")
    made["serve"].add_argument("--listen", metavar="HOST:PORT")
    arguments = parser.parse_args()
    try:
        return int(arguments.run(arguments))
    except CommandError as error:
        text, code = str(error), error.code
    except ServiceError as error:
        text, code = str(error), EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    print(text, file=sys.stderr)
    return code
