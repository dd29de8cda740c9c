# `snakehook report`: reads a report and prints what a person may make of it.
#
# A report is full of a package's own words: as root, this becomes the service's user before it
# reads a report. The store is opened to be read, and nothing else.

import argparse
import json
import re
import sqlite3
import sys
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import snakehook
from jail.command import draft
from snakehook import EXIT_OK, ServiceError, Settings

RUN_ID = re.compile(r"[0-9a-f]{32}")
MAX_REPORT_BYTES = 12_000_000  # a stored report has less
NO_REPORT = "That is not a report of this version of snakehook."


def command_report(arguments: argparse.Namespace) -> int:
    """drafts of what may be reported of a run"""
    settings = snakehook.settings_of_environment()
    report = load_report(arguments.source, settings)
    url, now = settings.inspector_url, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    try:
        if report["verdict"] not in ("medium", "high"):
            text = f"Nothing of severity medium or high was found in {draft.package_of(report)}"
            raise ServiceError(
                f"{snakehook.printable_line(text, 300)}: there is nothing to report."
            )
        if arguments.osv:
            shown = json.dumps(draft.osv(report, url, now), indent=2)
        elif arguments.indicators and arguments.json:
            shown = json.dumps(draft.indicators_json(report), indent=2)
        elif arguments.indicators:
            shown = draft.safe_lines(draft.indicator_lines(report))
        else:
            shown = draft.safe_lines(draft.draft_lines(report, url))
    except (LookupError, TypeError, ValueError, AttributeError):
        raise ServiceError(NO_REPORT) from None
    print(shown.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding))
    return EXIT_OK


# By the id of a run, or what `triage --json` has printed. Raises ServiceError.
def load_report(source: str, settings: Settings) -> dict[str, Any]:
    if RUN_ID.fullmatch(source):
        return stored_report(source, settings)
    try:
        file = open(source, "rb")  # noqa: PTH123
    except (OSError, ValueError) as error:
        shown = snakehook.printable_line(source, 100)
        why = error.strerror if isinstance(error, OSError) else error
        raise ServiceError(f"{shown} is no RUN_ID, and no file that can be read: {why}.") from None
    snakehook.give_up_root(settings.service_user, settings.service_group)
    with file:
        return parsed(file.read(MAX_REPORT_BYTES + 1))


def stored_report(run_id: str, settings: Settings) -> dict[str, Any]:
    path = settings.state_dir / snakehook.STORE_NAME
    snakehook.give_up_root(settings.service_user, settings.service_group)
    try:
        db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)
        row = db.execute(snakehook.STATEMENTS["report"], {"run_id": run_id}).fetchone()
        db.close()
    except sqlite3.Error as error:
        text = f"The store in STATE_DIR can't be read: {error}."
        raise ServiceError(text) from None
    if not row:
        raise ServiceError("There is no such run in the store of STATE_DIR.")
    head, report = row
    if not report:
        raise ServiceError("That run has not finished yet.")
    return parsed(head.encode()) | parsed(report)


def parsed(data: bytes) -> dict[str, Any]:
    value = None
    if len(data) <= MAX_REPORT_BYTES:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            value = None
    if not isinstance(value, dict):
        raise ServiceError(NO_REPORT)
    return value
