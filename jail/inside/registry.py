"""A stand-in for winreg, Windows' registry: empty, but for the keys by which programs are started.
What is written goes nowhere, and an audit event tells of it, as Python's own would.
"""

import sys
from types import ModuleType
from typing import Any, NoReturn

FILE_NOT_FOUND = 2
REGISTRY = {
    "HKEY_CLASSES_ROOT": 0x80000000,
    "HKEY_CURRENT_USER": 0x80000001,
    "HKEY_LOCAL_MACHINE": 0x80000002,
    "HKEY_USERS": 0x80000003,
    "HKEY_CURRENT_CONFIG": 0x80000005,
    "KEY_ALL_ACCESS": 0xF003F,
    "KEY_READ": 0x20019,
    "KEY_WRITE": 0x20006,
    "KEY_SET_VALUE": 2,
    "KEY_QUERY_VALUE": 1,
    "KEY_WOW64_32KEY": 0x200,
    "KEY_WOW64_64KEY": 0x100,
    "REG_SZ": 1,
    "REG_EXPAND_SZ": 2,
    "REG_BINARY": 3,
    "REG_DWORD": 4,
    "REG_MULTI_SZ": 7,
}
# There are such keys on each machine, with nothing in them here.
STARTS_PROGRAMS = ("\\currentversion\\run", "\\currentversion\\runonce")


class RegistryKey:
    """A key that is open: all that it knows is its path."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __str__(self) -> str:
        return self.path

    def __enter__(self) -> "RegistryKey":
        return self

    def __exit__(self, *_error: object) -> None:
        return None

    def Close(self) -> None:
        """It goes on to be of use."""


def not_found(*_args: Any, **_keywords: Any) -> NoReturn:
    """Whatever is asked, there is none of it: a loop over its keys must end."""
    raise FileNotFoundError(FILE_NOT_FOUND, "The system cannot find the file specified")


def create_key(key: object, name: str | None = "", *_words: Any, **_more: Any) -> RegistryKey:
    """A key below another, or below one of the roots, which are numbers."""
    if isinstance(key, int):
        roots = [root for root, number in REGISTRY.items() if number == key]
        above = roots[0] if roots else str(key)
    else:
        above = str(key)
    return RegistryKey(f"{above}\\{name}" if name else above)


def open_key(
    key: object, name: str = "", _: int = 0, access: int = REGISTRY["KEY_READ"]
) -> RegistryKey:
    """A key that is opened to be written to is there, though its owner may have to make it."""
    if access & REGISTRY["KEY_SET_VALUE"] or name.lower().endswith(STARTS_PROGRAMS):
        return create_key(key, name)
    not_found()


def set_value(key: object, name: str | None, kind: object, value: object) -> None:
    """The nameless value of a key below this one."""
    sys.audit("winreg.SetValue", create_key(key, name), "", kind, value)


def set_value_ex(key: object, name: str | None, _: object, kind: object, value: object) -> None:
    """A value of this key."""
    sys.audit("winreg.SetValue", create_key(key), name or "", kind, value)


def registry() -> ModuleType:
    """The module."""
    module = ModuleType("winreg")
    module.__dict__.update(REGISTRY, error=OSError, HKEYType=RegistryKey)
    module.__dict__.update(OpenKey=open_key, OpenKeyEx=open_key)
    module.__dict__.update(CreateKey=create_key, CreateKeyEx=create_key)
    module.__dict__.update(SetValue=set_value, SetValueEx=set_value_ex)
    for name in ("QueryValue", "QueryValueEx", "EnumKey", "EnumValue"):
        setattr(module, name, not_found)
    for name in ("QueryInfoKey", "DeleteKey", "DeleteValue"):
        setattr(module, name, not_found)
    module.__dict__["ConnectRegistry"] = lambda _machine, key: key
    for name in ("CloseKey", "FlushKey"):
        setattr(module, name, lambda _key: None)
    return module
