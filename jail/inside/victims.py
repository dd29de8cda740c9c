"""Makes the interpreter look like that of another victim: on Windows, on macOS, in CI, at a later
date. The library itself goes on as it must on the system that is there.

How: modules of the library get another `os` and `sys`, which say the truth; all others get the
changed modules. What Windows has and this system has not is there as a stand-in that does nothing.
"""

from __future__ import annotations

import _thread
import builtins
import os
import sys
from types import ModuleType

from jail.inside.library import kernel_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

LIBRARY_FOLDER = os.__file__.removesuffix("os.py")
# Years are what time bombs count in; another hour and day of the week come with it.
LATER_SEC = 5 * 365 * 86400 + 97 * 86400 + 11 * 3600

HOME_FOLDER = os.environ.get("HOME", "/")
# Drawn with the name of this machine, which is another in each run.
MACHINE_NUMBER = int.from_bytes(kernel_name().nodename.encode()[::-1], "big")
WINDOWS_NAME = "DESKTOP-" + "".join(
    "0123456789ABCDEFGHJKLMNPQRSTUVWX"[MACHINE_NUMBER % 99_999_999_977 >> shift & 31]
    for shift in range(0, 35, 5)
)
WINDOWS_VARIABLES = {
    "OS": "Windows_NT",
    "COMPUTERNAME": WINDOWS_NAME,
    "USERNAME": os.environ.get("USER", "dev"),
    "USERDOMAIN": WINDOWS_NAME,
    "PROCESSOR_ARCHITECTURE": "AMD64",
    "PROCESSOR_IDENTIFIER": "Intel64 Family 6 Model 151 Stepping 2, GenuineIntel",
    "NUMBER_OF_PROCESSORS": "8",
    "PATHEXT": ".COM;.EXE;.BAT;.CMD",
    "COMSPEC": "C:\\Windows\\system32\\cmd.exe",
    "SystemDrive": "C:",
    "HOMEDRIVE": "C:",
}
# These exist, so that what is looked for or dropped there has a place.
WINDOWS_FOLDERS = {
    "USERPROFILE": HOME_FOLDER,
    "APPDATA": f"{HOME_FOLDER}/AppData/Roaming",
    "LOCALAPPDATA": f"{HOME_FOLDER}/AppData/Local",
    "TEMP": f"{HOME_FOLDER}/AppData/Local/Temp",
    "TMP": f"{HOME_FOLDER}/AppData/Local/Temp",
    "PUBLIC": f"{HOME_FOLDER}/Public",
    "ProgramData": f"{HOME_FOLDER}/ProgramData",
    "ALLUSERSPROFILE": f"{HOME_FOLDER}/ProgramData",
    "ProgramFiles": f"{HOME_FOLDER}/Program Files",
    "ProgramFiles(x86)": f"{HOME_FOLDER}/Program Files (x86)",
    "SystemRoot": f"{HOME_FOLDER}/Windows",
    "windir": f"{HOME_FOLDER}/Windows",
}
MACOS_VARIABLE = "__CF_USER_TEXT_ENCODING"
MACOS_FOLDERS = (
    f"{HOME_FOLDER}/Library/Application Support",
    f"{HOME_FOLDER}/Library/LaunchAgents",
)
# What is secret of these is bait, and comes with the environment of the jail.
CI_VARIABLES = {
    "CI": "true",
    "GITHUB_ACTIONS": "true",
    "GITHUB_ACTOR": "dev",
    "GITHUB_EVENT_NAME": "push",
    "GITHUB_JOB": "build",
    "GITHUB_REF": "refs/heads/main",
    "GITHUB_REPOSITORY": "dev/app",
    "GITHUB_REPOSITORY_OWNER": "dev",
    "GITHUB_RUN_ID": str(10**10 + MACHINE_NUMBER % 9_999_999_967),
    "GITHUB_SERVER_URL": "https://github.com",
    "GITHUB_API_URL": "https://api.github.com",
    "GITHUB_WORKFLOW": "ci",
    "GITHUB_WORKSPACE": HOME_FOLDER,
    "RUNNER_OS": "Linux",
    "RUNNER_ARCH": "X64",
    "RUNNER_NAME": "GitHub Actions 4",
    "RUNNER_ENVIRONMENT": "github-hosted",
    "RUNNER_TEMP": os.environ.get("TMPDIR", "/tmp"),  # noqa: S108
    "GITHUB_ENV": f"{os.environ.get('TMPDIR', '/tmp')}/set_env_5f1c",  # noqa: S108
    "GITHUB_OUTPUT": f"{os.environ.get('TMPDIR', '/tmp')}/set_output_5f1c",  # noqa: S108
    "GITHUB_EVENT_PATH": f"{HOME_FOLDER}/_temp/_github_workflow/event.json",
    "RUNNER_TOOL_CACHE": "/opt/hostedtoolcache",
    "GITHUB_SHA": "8f3c1d0b5a7e42963f0d1c2b4e5a69788c7d6e5f",
    # By these other services are known.
    "GITLAB_CI": "true",
    "CI_SERVER": "yes",
    "CIRCLECI": "true",
    "TRAVIS": "true",
    "BUILDKITE": "true",
    "DRONE": "true",
    "APPVEYOR": "True",
    "TF_BUILD": "True",
    "JENKINS_URL": "https://jenkins.example.com/",
    "BUILD_NUMBER": "412",
    "TEAMCITY_VERSION": "2024.03",
    "BITBUCKET_BUILD_NUMBER": "412",
    "CODEBUILD_BUILD_ID": "app:8e1f4a52-0c7d-4b19-a9f3-6d2e5c7b8a90",
}


# What only other systems than Windows have.
NOT_ON_WINDOWS = {
    *("fcntl", "grp", "posix", "pwd", "pty", "resource", "spwd", "syslog", "termios", "tty"),
}
FUNCTIONS_NOT_ON_WINDOWS = (
    *("chown", "chroot", "fork", "forkpty", "getegid", "geteuid", "getgid", "getgroups"),
    *("getloadavg", "getpgid", "getpgrp", "getsid", "getuid", "lchown", "mkfifo", "nice"),
    *("setegid", "seteuid", "setgid", "setpgid", "setsid", "setuid", "sync", "uname", "wait3"),
)


class View(ModuleType):
    """A module as the library sees it: some of it as it was, all else of the real one, which is
    changed through it, too. Who takes its type for that of all modules can make more of them.
    """

    def __getattr__(self, name: str) -> Any:
        real = self.__dict__.get("_real")
        if real is None:
            raise AttributeError(name)
        return getattr(real, name)

    def __setattr__(self, name: str, value: object) -> None:
        real = self.__dict__.get("_real")
        if real is None:
            super().__setattr__(name, value)
        else:
            setattr(real, name, value)


def view_of(name: str, said: Mapping[str, object]) -> ModuleType:
    """The module of that name, but for what is `said`."""
    view = View(name)
    view.__dict__.update(said, _real=sys.modules[name])
    return view


def is_library(names: Mapping[str, object]) -> bool:
    """Whether these are the globals of a module of the standard library."""
    file = names.get("__file__")
    if not isinstance(file, str) or not file.startswith(LIBRARY_FOLDER):
        return False
    # The import system makes modules of the type of `sys`.
    return not file.startswith((f"{LIBRARY_FOLDER}importlib/", f"{LIBRARY_FOLDER}site-packages/"))


def is_being_loaded(name: str) -> bool:
    """Whether a module is in the middle of its import."""
    return bool(getattr(getattr(sys.modules.get(name), "__spec__", None), "_initializing", False))


def keep_for_library(
    truths: Mapping[str, Mapping[str, object]],
    late: dict[str, Callable[[], None]],
    not_there: Collection[str] = (),
    gone: Collection[str] = (),
) -> None:
    """Let modules of the library see the truth: those that are loaded, and those to come.

    Args:
        late: what to do when somebody else imports a module, once.
        not_there: modules that the library does not find.
        gone: modules that nobody else finds.
    """
    views = {name: view_of(name, said) for name, said in truths.items()}
    if "os" in views:
        views["os.path"] = views["os"]
    for module in [*sys.modules.values()]:
        names = getattr(module, "__dict__", {})
        if not is_library(names) or names.get("__name__") in views:
            continue
        for variable, value in [*names.items()]:
            for name in truths:
                if value is sys.modules[name]:
                    names[variable] = views[name]
    real_import = builtins.__import__

    def import_for(
        name: str,
        globals: Mapping[str, object] | None = None,
        locals: Mapping[str, object] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        # A line of a .pth file, which site executes, is not the library's.
        file = sys._getframe(1).f_code.co_filename
        is_text = file.startswith("<") and not file.startswith("<frozen")
        for_library = bool(globals) and is_library(globals or {}) and not is_text
        if name in views and level == 0 and for_library and not (fromlist and "." in name):
            return views[name]
        if name in (not_there if for_library else gone) and level == 0:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        imported = real_import(name, globals, locals, fromlist or (), level)
        if name in late and not for_library and not is_being_loaded(name):
            late.pop(name)()
        return imported

    builtins.__import__ = import_for


def set_platform(answers: Mapping[str, object]) -> None:
    """Let everybody see what `answers` says of `platform`, which may have to be asked first."""
    import platform

    platform.uname()
    for name, answer in answers.items():
        setattr(platform, name, answering(answer))


def set_build_platform(name: str) -> None:
    """Let everybody see for what the interpreter was built."""
    sys.modules["sysconfig"].__dict__["get_platform"] = answering(name)


def answering(answer: object) -> Callable[..., object]:
    """A function that always says the same."""
    return lambda *_args, **_keywords: answer


def uname(system: str, release: str, version: str, machine: str) -> Any:
    """What platform.uname() says there."""
    import platform

    return platform.uname_result(system, WINDOWS_NAME, release, version, machine)


def make_folders(folders: Sequence[str]) -> None:
    """Make them, where that is allowed."""
    for folder in folders:
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            continue


def be_on_windows() -> None:
    """Windows 10, 64 bits."""
    from jail.inside.windows import ONLY_FOR_OTHERS, add_stand_ins, add_to_asyncio

    make_folders([*WINDOWS_FOLDERS.values()])
    found = WINDOWS_VARIABLES | WINDOWS_FOLDERS
    # There no name differs from another in its capitals alone.
    os.environ.update(found | {name.upper(): value for name, value in found.items()})
    version = "10.0.19045"
    set_platform(
        {
            "system": "Windows",
            "release": "10",
            "version": version,
            "machine": "AMD64",
            "node": WINDOWS_NAME,
            "processor": WINDOWS_VARIABLES["PROCESSOR_IDENTIFIER"],
            "platform": f"Windows-10-{version}-SP0",
            "architecture": ("64bit", "WindowsPE"),
            "win32_ver": ("10", version, "SP0", "Multiprocessor Free"),
            "win32_edition": "Professional",
            "uname": uname("Windows", "10", version, "AMD64"),
        }
    )
    add_stand_ins()
    there = [name for name in FUNCTIONS_NOT_ON_WINDOWS if hasattr(os, name)]
    functions = {name: getattr(os, name) for name in there}
    truths: dict[str, dict[str, object]] = {"sys": {"platform": sys.platform}}
    truths["os"] = {"name": os.name, **functions}
    late = {"asyncio": add_to_asyncio, "sysconfig": lambda: set_build_platform("win-amd64")}
    keep_for_library(truths, late, ONLY_FOR_OTHERS, NOT_ON_WINDOWS)
    os.name, sys.platform = "nt", "win32"
    for name in there:
        delattr(os, name)


def be_on_macos() -> None:
    """macOS 14 on Apple's own processor."""
    make_folders(MACOS_FOLDERS)
    os.environ[MACOS_VARIABLE] = "0x1F5:0x0:0x0"
    version = "Darwin Kernel Version 23.5.0: root:xnu-10063.121.3~5/RELEASE_ARM64_T6000"
    set_platform(
        {
            "system": "Darwin",
            "release": "23.5.0",
            "version": version,
            "machine": "arm64",
            "processor": "arm",
            "platform": "macOS-14.5-arm64-arm-64bit",
            "mac_ver": ("14.5", ("", "", ""), "arm64"),
            "libc_ver": ("", ""),
            "uname": uname("Darwin", "23.5.0", version, "arm64"),
        }
    )
    truths: dict[str, dict[str, object]] = {"sys": {"platform": sys.platform}}
    truths["os"] = {"uname": os.uname}
    late = {"sysconfig": lambda: set_build_platform("macosx-14.5-arm64")}
    keep_for_library(truths, late)
    sys.platform = "darwin"
    told = os.uname_result(("Darwin", os.uname().nodename, "23.5.0", version, "arm64"))
    setattr(os, "uname", answering(told))  # noqa: B010 - it has another type


def be_in_ci() -> None:
    """GitHub Actions, which most others are modelled on."""
    os.environ.update(CI_VARIABLES)


def be_later() -> None:
    """A later date, as `time` and `datetime` tell it; clocks that only run are left alone."""
    from jail.inside.later import move_clocks

    move_clocks(LATER_SEC)


VICTIMS: dict[str, Callable[[], None]] = {
    "self": lambda: None,
    "windows": be_on_windows,
    "macos": be_on_macos,
    "ci": be_in_ci,
    "later": be_later,
}


def victim_of(environment: Mapping[str, str]) -> str:
    """Who has such variables, as jail/watch/triggers.py gives them."""
    if environment.get("OS") == WINDOWS_VARIABLES["OS"]:
        return "windows"
    if MACOS_VARIABLE in environment:
        return "macos"
    return "ci,later" if "GITHUB_ACTIONS" in environment else "self"


def become(victim: str) -> None:
    """Become one of VICTIMS, or several: "ci,later", unless that was done. Raises KeyError for
    another.
    """
    if getattr(_thread, "_victim", None) == victim:
        return
    setattr(_thread, "_victim", victim)  # noqa: B010 - where the hook's own mark is
    for name in victim.split(","):
        VICTIMS[name]()
