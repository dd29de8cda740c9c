"""Further names of files by links to their folders, and modules that another file hides."""

import pytest

from jail.orders import HOME_IN_JAIL, WORK_IN_JAIL
from jail.watch.links import MAX_NAMES, MAX_REACHED, Links
from jail.watch.shadows import Shadows


@pytest.mark.parametrize(
    ("link", "target", "path", "name"),
    [
        ("home/.local", "data", "home/data/bin/pip", "home/.local/bin/pip"),
        ("home/.local", "./x/../data/", "home/data/bin/pip", "home/.local/bin/pip"),
        ("home/.local", f"{HOME_IN_JAIL}/data", "home/data/bin/pip", "home/.local/bin/pip"),
        ("home/.local", f"{WORK_IN_JAIL}/home/data", "home/data/x", "home/.local/x"),
        ("home/.config", "/tmp/c", "tmp/c/autostart/x", "home/.config/autostart/x"),  # noqa: S108
        ("home/.config", "../../tmp/c", "tmp/c/autostart/x", "home/.config/autostart/x"),
        ("home/.bashrc", "/dev/shm/b", "shm/b", "home/.bashrc"),  # noqa: S108
        ("tmp/link", f"{WORK_IN_JAIL}/site/x-1", "site/x-1/x.py", "tmp/link/x.py"),
        ("home/all", "/tmp", "tmp/x", "home/all/x"),  # noqa: S108
    ],
)
def test_a_link_gives_what_it_leads_to_another_name(
    link: str, target: str, path: str, name: str
) -> None:
    assert Links({link: target}).other_names(path) == [name]


@pytest.mark.parametrize("target", ["/etc", "/", "..", "/proc/self", "\udcff", "a" * 5000])
def test_a_link_that_leads_elsewhere_gives_no_name(target: str) -> None:
    links = Links({"home/link": target})
    assert links.other_names("home/file") == []
    assert links.reached_by("home/link", ["home/file"]) == []


def test_links_lead_to_links() -> None:
    links = Links({"home/.local": "one", "home/one": "two", "home/two": "/tmp/three"})  # noqa: S108
    assert links.other_names("tmp/three/bin/pip") == [
        "home/two/bin/pip",
        "home/one/bin/pip",
        "home/.local/bin/pip",
    ]


def test_circles_and_crowds_of_links_end() -> None:
    assert len(Links({"home/a/self": "."}).other_names("home/a/file")) == MAX_NAMES
    circle = Links({"home/a": "b", "home/b": "a"})
    assert circle.other_names("home/a/file") == ["home/b/file"]
    crowd = Links({f"home/l{number}": "data" for number in range(5000)})
    assert len(crowd.other_names("home/data/file")) == MAX_NAMES


def test_a_new_link_reaches_the_files_of_its_folder() -> None:
    files = ["home/data", "home/data-2/x", "home/data/a", "home/data/b/c", "home/data0", "tmp/x"]
    links = Links({"home/.local": "data"})
    assert links.reached_by("home/.local", files) == ["home/data/a", "home/data/b/c"]
    assert links.reached_by("home/other", files) == []
    many = [f"home/data/{number:05}" for number in range(1000)]
    assert len(links.reached_by("home/.local", many)) == MAX_REACHED


SITE = "site/x-1"
SO = "cpython-311-x86_64-linux-gnu.so"


@pytest.mark.parametrize(
    ("new", "hidden"),
    [
        ("victim/__init__.py", "victim.py"),
        ("victim/__init__.pyc", "victim.py"),
        (f"victim/__init__.{SO}", "victim.py"),
        (f"victim.{SO}", "victim.py"),
        ("victim.so", "victim.py"),
        ("native/__init__.py", f"native.{SO}"),
        ("deep/sub/__init__.py", "deep/sub.py"),
    ],
)
def test_a_file_that_python_finds_first_hides_another(new: str, hidden: str) -> None:
    owners = {f"{SITE}/{name}": "victim" for name in ("victim.py", f"native.{SO}", "deep/sub.py")}
    shadows = Shadows(owners, {*owners, f"{SITE}/{new}"})
    assert shadows.shadowed_by(f"{SITE}/{new}") == f"{SITE}/{hidden}"


@pytest.mark.parametrize("new", ["other/__init__.py", "victim/other.py", "victim.txt", "victim.py"])
def test_other_files_hide_nothing(new: str) -> None:
    owners = {f"{SITE}/victim.py": "victim"}
    assert Shadows(owners, {*owners, f"{SITE}/{new}"}).shadowed_by(f"{SITE}/{new}") is None


def test_a_distribution_may_hide_its_own_files() -> None:
    owners = {f"{SITE}/fast.py": "fast", f"{SITE}/fast.{SO}": "fast"}
    assert Shadows(owners, owners).shadowed_by(f"{SITE}/fast.{SO}") is None


def test_another_distribution_may_not() -> None:
    owners = {f"{SITE}/fast.py": "fast", f"{SITE}/fast.{SO}": "evil"}
    assert Shadows(owners, owners).shadowed_by(f"{SITE}/fast.{SO}") == f"{SITE}/fast.py"


def test_a_file_that_is_gone_is_not_hidden() -> None:
    owners = {f"{SITE}/victim.py": "victim"}
    new = f"{SITE}/victim/__init__.py"
    assert Shadows(owners, {new}).shadowed_by(new) is None
