"""Stand-ins for what Python has on Windows alone. They do nothing, and are made so that code which
is written for Windows goes on: what it then starts, asks for and writes is what is to be seen.
"""

import builtins
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

from jail.inside.made_up import Mock
from jail.inside.registry import registry

INVALID_HANDLE = -1
FLAGS = {
    "CREATE_NEW_CONSOLE": 0x10,
    "CREATE_NEW_PROCESS_GROUP": 0x200,
    "CREATE_NO_WINDOW": 0x08000000,
    "DETACHED_PROCESS": 0x8,
    "CREATE_BREAKAWAY_FROM_JOB": 0x01000000,
    "CREATE_DEFAULT_ERROR_MODE": 0x04000000,
    "ABOVE_NORMAL_PRIORITY_CLASS": 0x8000,
    "BELOW_NORMAL_PRIORITY_CLASS": 0x4000,
    "HIGH_PRIORITY_CLASS": 0x80,
    "IDLE_PRIORITY_CLASS": 0x40,
    "NORMAL_PRIORITY_CLASS": 0x20,
    "REALTIME_PRIORITY_CLASS": 0x100,
    "STARTF_USESHOWWINDOW": 1,
    "STARTF_USESTDHANDLES": 0x100,
    "STD_INPUT_HANDLE": -10,
    "STD_OUTPUT_HANDLE": -11,
    "STD_ERROR_HANDLE": -12,
    "SW_HIDE": 0,
}
MOCKED = (
    *("_winapi", "nt", "_overlapped", "winsound"),
    # Of packages that nobody can install here.
    *("pythoncom", "win32api", "win32con", "win32crypt", "win32gui", "win32process", "wmi"),
)
# The library tells by them what system it is on.
ONLY_FOR_OTHERS = {*MOCKED, "winreg", "msvcrt"}
POPEN_WORDS = ("creationflags", "startupinfo")


# What a person's machine says, on which nobody looks at what runs. Others give a mock.
ANSWERS = {
    "IsDebuggerPresent": 0,
    "CheckRemoteDebuggerPresent": 0,
    "GetSystemMetrics": 1920,
    "GetTickCount": 86_400_000,
    "GetTickCount64": 86_400_000,
    "GetLastError": 0,
    "GetUserDefaultUILanguage": 0x409,
    "GetSystemDefaultUILanguage": 0x409,
    "GetKeyboardLayout": 0x409,
}


class WindowsVersion(NamedTuple):
    """As sys.getwindowsversion() tells it."""

    major: int = 10
    minor: int = 0
    build: int = 19045
    platform: int = 2
    service_pack: str = ""

    @property
    def platform_version(self) -> tuple[int, int, int]:
        """The version of the kernel's file."""
        return self.major, self.minor, self.build


class StartupInfo:
    """subprocess.STARTUPINFO"""

    def __init__(self, **fields: Any) -> None:
        self.dwFlags = 0
        self.wShowWindow = 0
        self.hStdInput = self.hStdOutput = self.hStdError = None
        self.lpAttributeList: dict[str, Any] = {}
        self.__dict__.update(fields)


def console() -> ModuleType:
    """msvcrt, with no key pressed."""
    module = ModuleType("msvcrt")
    module.__dict__.update(LK_LOCK=1, LK_NBLCK=2, LK_UNLCK=0, LK_RLCK=3, LK_NBRLCK=4)
    answers: dict[str, Any] = {
        "kbhit": False,
        "setmode": 0,
        "locking": None,
        "putch": None,
        "putwch": None,
    }
    answers |= {"getch": b"\r", "getwch": "\r", "getche": b"\r", "getwche": "\r", "ungetch": None}
    for name, answer in answers.items():
        setattr(module, name, lambda *_args, answer=answer: answer)
    module.__dict__.update(get_osfhandle=lambda fd: fd, open_osfhandle=lambda handle, _: handle)
    module.__dict__["SetErrorMode"] = lambda _: 0
    return module


def known_folder(_kind: object, _flags: object, _token: object, path: Any) -> int:
    """SHGetKnownFolderPath, asked by everybody who keeps a file for a user."""
    path._obj.value = os.environ["LOCALAPPDATA"]
    return 0


def folder_path(_window: object, _kind: object, _token: object, _flags: object, path: Any) -> int:
    """SHGetFolderPathW, the same for older programs."""
    path.value = os.environ["LOCALAPPDATA"]
    return 0


def answering_library(name: str) -> Mock:
    """One whose functions of ANSWERS have these answers."""
    library = Mock(name)
    for function, answer in ANSWERS.items():
        setattr(library, function, Answering(function, answer))
    return library


class Answering(Mock):
    """A function that always says the same."""

    def __init__(self, name: str, answer: int) -> None:
        super().__init__(name)
        self.__dict__["_answer"] = answer

    def __call__(self, *_args: Any, **_keywords: Any) -> Any:
        return self.__dict__["_answer"]


def add_to_ctypes() -> None:
    """Libraries of Windows: each is there, and nearly every function of it gives nothing."""
    shell = Mock("shell32")
    shell.SHGetKnownFolderPath = known_folder
    shell.SHGetFolderPathW = shell.SHGetFolderPathA = folder_path
    libraries = Mock("windll")
    libraries.shell32 = shell
    for name in ("kernel32", "user32"):
        setattr(libraries, name, answering_library(name))

    def load(name: object, *_args: Any, **_keywords: Any) -> Any:
        return shell if "shell32" in str(name).lower() else answering_library(str(name))

    libraries.LoadLibrary = load
    ctypes.__dict__.update(windll=libraries, oledll=libraries, WinDLL=load, OleDLL=load)
    ctypes.__dict__.update(
        WINFUNCTYPE=Mock("WINFUNCTYPE"),
        HRESULT=ctypes.c_long,
        FormatError=lambda *_: "The operation completed successfully.",
        GetLastError=lambda: 0,
        get_last_error=lambda: 0,
        set_last_error=lambda _: 0,
        WinError=lambda *_: OSError(0, "The operation completed successfully."),
    )


def add_to_subprocess() -> None:
    """The words for a process without a window; a process here has none."""
    subprocess.__dict__.update(FLAGS, STARTUPINFO=StartupInfo)
    real_init = subprocess.Popen.__init__

    def init(self: Any, *args: Any, **keywords: Any) -> None:
        for word in POPEN_WORDS:
            keywords.pop(word, None)
        real_init(self, *args, **keywords)

    subprocess.Popen.__init__ = init  # type: ignore[method-assign]


def add_stand_ins() -> None:
    """Add all that is only there on Windows."""
    add_to_ctypes()
    add_to_subprocess()
    add_to_paths()
    sys.modules["winreg"] = registry()
    sys.modules["msvcrt"] = console()
    for name in MOCKED:
        sys.modules[name] = module_of_mocks(name)
    builtins.__dict__["WindowsError"] = OSError
    sys.__dict__.update(getwindowsversion=WindowsVersion, winver="3.11", dllhandle=0)
    # A file that is opened by what the system has for it: as a program, which then shows.
    os.__dict__.update(
        startfile=lambda path, *_: subprocess.Popen([path]),  # noqa: S603 - in the jail
        add_dll_directory=lambda _: Mock("add_dll_directory"),
        O_BINARY=0,
        P_DETACH=4,
    )
    signal.__dict__.update(CTRL_C_EVENT=0, CTRL_BREAK_EVENT=1, SIGBREAK=21)


def with_slashes(real: Callable[..., Any], is_look: bool) -> Callable[..., Any]:
    """A function that takes paths as Windows has them: `C:\\Users\\dev\\AppData`, which are below
    folders that are there.

    Args:
        is_look: whether it only looks if there is something, which nobody else hears.
    """

    def call(path: Any, *args: Any, **keywords: Any) -> Any:
        given = path
        if isinstance(path, str) and "\\" in path:
            given = path.partition(":\\")[2] if path[1:3] == ":\\" else path
            given = given.replace("\\", "/")
        if is_look and isinstance(given, str):
            sys.audit("open", given, "r", 0)
        return real(given, *args, **keywords)

    return call


def add_to_paths() -> None:
    """Paths with backslashes lead where they would. Who looks whether there is a browser's folder,
    and goes away if not, has looked.
    """
    for name in ("exists", "isdir", "isfile", "getsize"):
        setattr(os.path, name, with_slashes(getattr(os.path, name), is_look=True))
    for name in ("listdir", "scandir"):
        setattr(os, name, with_slashes(getattr(os, name), is_look=False))
    builtins.open = with_slashes(builtins.open, is_look=False)


def add_to_asyncio() -> None:
    """The event loops of Windows: the loop that is there."""
    asyncio = sys.modules["asyncio"]
    policy = asyncio.DefaultEventLoopPolicy
    asyncio.__dict__.update(
        WindowsSelectorEventLoopPolicy=policy,
        WindowsProactorEventLoopPolicy=policy,
        ProactorEventLoop=asyncio.SelectorEventLoop,
    )


def module_of_mocks(name: str) -> ModuleType:
    """A module that has everything that is asked of it."""
    module = ModuleType(name)
    module.__dict__["__getattr__"] = lambda attribute: mock_attribute(name, attribute)
    return module


def mock_attribute(name: str, attribute: str) -> Mock:
    """Raises AttributeError for what the import system asks of a module."""
    if attribute.startswith("__"):
        raise AttributeError(attribute)
    return Mock(f"{name}.{attribute}")
