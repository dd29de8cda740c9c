"""What is new in a release: its archive beside that of the release before it.

Hostile input: names and contents of both. What is compared line by line is bounded in lines and
time, since the library's way of comparing may take very long for lines that are made for that.
"""

import difflib
import json
import re
import time
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from jail.watch.contents import parse_entry_points
from jail.watch.events import printable
from jail.watch.members import MAX_MEMBER_PATH_CHARS, Archive, Member

MAX_COMPARED = 200  # entries of each list
MAX_DIFFED = 60  # files whose lines are shown
MAX_DIFF_CHARS, MAX_DIFFS_CHARS = 4000, 150_000
MAX_DIFF_LINE_CHARS = 300
MAX_DIFF_LINES = 150  # of what differs, that are put side by side
MAX_DIFF_SEC = 1.5  # for all files
MAX_BUILD_CHARS = 500
CUT_HERE = "…"

# `a_package-1.0.dist-info/METADATA`, `a_package-1.0.data/scripts/x`: without the version
VERSIONED_FOLDER = re.compile(r"([^/]+?)-\d[^/]*\.(dist-info|data)/", re.DOTALL)
# These differ between any two releases, and nothing runs what they say; what matters in them is
# compared by itself.
ALWAYS_NEW = re.compile(
    r"[^/]+\.dist-info/(?:METADATA|RECORD|WHEEL|top_level\.txt)|PKG-INFO"
    r"|(?:.*/)?[^/]+\.egg-info/(?:PKG-INFO|SOURCES\.txt|top_level\.txt)",
    re.DOTALL,
)
BUILD_KEYS = ("build-backend", "requires", "backend-path")
# What an interpreter executes at its start.
AT_START_FILE = re.compile(r".*\.pth|(?:.*/)?(?:site|user)customize\.py", re.DOTALL)
# `fast.so.1`, `setup.exe`, `x.pyc`: what nobody reads.
BINARY_NAME = re.compile(
    r".*\.(?:so(?:\.[0-9.]+)?|pyd|dll|dylib|exe|pyc|pyo|jar|class|node|wasm|a|o|bin)",
    re.DOTALL | re.IGNORECASE,
)
# ELF, Windows, macOS, WebAssembly
BINARY_STARTS = (
    *(b"\x7fELF", b"MZ", b"\xcf\xfa\xed\xfe"),
    *(b"\xce\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\0asm"),
)
# `Requires-Dist: requests>=2 ; extra == "x"`, in METADATA or PKG-INFO
REQUIRES = re.compile(r"Requires-Dist:\s*(.{1,300})", re.IGNORECASE)
# `Generator: hatchling 1.21.0`, in WHEEL
GENERATOR = re.compile(r"Generator:\s*(\S{1,100})", re.IGNORECASE)

Comparison = dict[str, Any]


def compare_releases(before: Archive, after: Archive) -> Comparison:
    """What `after` has that `before` does not have, and the other way round."""
    old, new = plain_names(before), plain_names(after)
    added, removed = told_of(new.keys() - old.keys()), told_of(old.keys() - new.keys())
    both = old.keys() & new.keys()
    changed = told_of(name for name in both if new[name].sha256 != old[name].sha256)
    # No crowd of small changes hides a new file.
    diffs = all_diffs(old, new, sorted([*changed, *added], key=weight))
    found: Comparison = {
        "added": [item_of(name, new[name], diffs) for name in added[:MAX_COMPARED]],
        "removed": [shown(name) for name in removed[:MAX_COMPARED]],
        "changed": [
            item_of(name, new[name], diffs) | {"bytes_before": old[name].size_bytes}
            for name in changed[:MAX_COMPARED]
        ],
        "counts": {"added": len(added), "removed": len(removed), "changed": len(changed)},
    }
    found["startup_files"] = shown_names(
        name for name in (*added, *changed) if AT_START_FILE.fullmatch(name)
    )
    found["binaries"] = shown_names(
        name
        for name in (*added, *changed)
        if is_binary(name, new[name]) and not (name in old and is_binary(name, old[name]))
    )
    builds = build_of(old), build_of(new)
    found["build"] = list(builds) if builds[0] != builds[1] else None
    found["dependencies"] = difference(requirements(old), requirements(new))
    found["entry_points"] = difference(entry_points(old), entry_points(new))
    odd = [*(f"before: {note}" for note in before.odd), *after.odd]
    return found | {"odd": odd}


def plain_names(archive: Archive) -> dict[str, Member]:
    """The members by their names without what bears the version: folders of a wheel, or the
    folder that has all of a source distribution.
    """
    tops = {name.partition("/")[0] for name in archive.members}
    inner = [f"{top}/" for top in sorted(tops) if f"{top}/PKG-INFO" in archive.members]
    found: dict[str, Member] = {}
    for name, member in archive.members.items():
        plain = VERSIONED_FOLDER.sub(r"\1.\2/", name, 1)
        if archive.is_source and inner:
            plain = name.removeprefix(inner[0])
        # Nothing hides behind another: the second of a name keeps all of it.
        found[name if plain in found else plain] = member
    return found


def told_of(names: Iterable[str]) -> list[str]:
    """Those that are worth to be told, what tells most first."""
    return sorted((name for name in names if not ALWAYS_NEW.fullmatch(name)), key=weight)


def weight(name: str) -> tuple[bool, bool, int, str]:
    """What runs by itself comes first, then code; what lies near before what lies deep."""
    runs = AT_START_FILE.fullmatch(name) or name in ("setup.py", "pyproject.toml", "setup.cfg")
    return not runs, not name.endswith(".py"), name.count("/"), name


def shown(name: str) -> str:
    return printable(name.encode(errors="replace"))[:MAX_MEMBER_PATH_CHARS]


def shown_names(names: Iterable[str]) -> list[str]:
    return [shown(name) for name in names][:MAX_COMPARED]


def item_of(name: str, member: Member, diffs: Mapping[str, str]) -> Comparison:
    about: Comparison = {"path": shown(name), "bytes": member.size_bytes, "sha256": member.sha256}
    return about | {"diff": diffs.get(name)}


def is_binary(name: str, member: Member) -> bool:
    return bool(BINARY_NAME.fullmatch(name)) or member.start.startswith(BINARY_STARTS)


def member_text(member: Member | None) -> str | None:
    """The text of a file; None where it is none, or too large."""
    if not member or not member.is_whole or b"\0" in member.start:
        return None
    try:
        return member.start.decode()
    except UnicodeDecodeError:
        return None


def all_diffs(
    old: Mapping[str, Member], new: Mapping[str, Member], names: Iterable[str]
) -> dict[str, str]:
    """How the lines of each file differ, as long as there are time and room."""
    end_sec, left_chars, found = time.monotonic() + MAX_DIFF_SEC, MAX_DIFFS_CHARS, dict[str, str]()
    for name in names:
        before = member_text(old[name]) if name in old else ""
        after = member_text(new[name])
        if before is None or after is None:
            continue
        if len(found) >= MAX_DIFFED or left_chars <= 0 or time.monotonic() > end_sec:
            break
        text = diff(before, after)
        if len(text) > MAX_DIFF_CHARS:
            text = f"{text[:MAX_DIFF_CHARS]}\n{CUT_HERE}"
        found[name] = text
        left_chars -= len(text)
    return found


def diff(before: str, after: str) -> str:
    """How two texts differ, in the usual format; of long differences only the lines that the other
    does not have.

    What is the same at their start and end is left out first, which costs next to nothing.
    """
    old, new = before.splitlines(), after.splitlines()
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    end = 0
    while end < most - start and old[len(old) - 1 - end] == new[len(new) - 1 - end]:
        end += 1
    old, new = old[start : len(old) - end], new[start : len(new) - end]
    if not old:
        lines = [f"@@ {start + 1} @@", *(f"+{line}" for line in new)]
    elif max(len(old), len(new)) <= MAX_DIFF_LINES:
        unified = difflib.unified_diff(old, new, n=0, lineterm="")
        lines = [line for line in unified if not line.startswith(("--- ", "+++ "))]
    else:
        lines = [f"@@ {start + 1} @@", *lines_apart(old, new)]
    return "\n".join(cut_line(line) for line in lines)


def lines_apart(old: list[str], new: list[str]) -> list[str]:
    """The lines that only one of two texts has."""
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    lines = [f"-{line}" for line in old if gone[line] > 0]
    return lines + [f"+{line}" for line in new if come[line] > 0]


def cut_line(line: str) -> str:
    if len(line) <= MAX_DIFF_LINE_CHARS:
        return line
    return f"{line[:MAX_DIFF_LINE_CHARS]}{CUT_HERE} ({len(line) - 1} characters)"


def texts_named(files: Mapping[str, Member], pattern: str) -> list[str]:
    """The texts of the files with such a name."""
    texts = [member_text(member) for name, member in files.items() if re.fullmatch(pattern, name)]
    return [text for text in texts if text]


def build_of(files: Mapping[str, Member]) -> str:
    """What builds the release, or has built it."""
    for text in texts_named(files, r"[^/]+\.dist-info/WHEEL"):
        match = GENERATOR.search(text)
        return match[1] if match else ""
    for text in texts_named(files, r"pyproject\.toml"):
        try:
            system = tomllib.loads(text).get("build-system", {})
            told = json.dumps([system.get(key) for key in BUILD_KEYS])
            return told[:MAX_BUILD_CHARS]
        except (ValueError, RecursionError, AttributeError, TypeError):
            return "a pyproject.toml that can't be read"
    return "setup.py" if "setup.py" in files else ""


def requirements(files: Mapping[str, Member]) -> set[str]:
    """What a release says it requires."""
    found: set[str] = set()
    for text in texts_named(files, r"[^/]+\.dist-info/METADATA|PKG-INFO"):
        head = text.partition("\n\n")[0].splitlines()
        matches = [REQUIRES.fullmatch(line.strip()) for line in head]
        found |= {match[1].strip() for match in matches if match}
    for text in texts_named(files, r"(?:.*/)?[^/]+\.egg-info/requires\.txt"):
        found |= {line.strip() for line in text.splitlines() if line.strip()}
    return found


def entry_points(files: Mapping[str, Member]) -> set[str]:
    found: set[str] = set()
    for text in texts_named(files, r"(?:.*/)?[^/]+\.(?:dist|egg)-info/entry_points\.txt"):
        entries = parse_entry_points(text)
        found |= {f"{entry.group}: {entry.name} = {entry.target}" for entry in entries}
    return found


def difference(before: set[str], after: set[str]) -> dict[str, list[str]]:
    return {
        "added": shown_names(sorted(after - before)),
        "removed": shown_names(sorted(before - after)),
    }
