"""Which release came before another, by the names of files alone: as packaging orders them."""

import itertools
import random

import pytest
from packaging.version import InvalidVersion, Version

from jail.watch.releases import earlier_file, parse_file, version_key

PARTS = (
    ("", "1!", "v"),
    ("0", "1", "1.0", "1.0.0", "1.10", "2024.1.2", "01.2"),
    ("", "a1", ".b", "-rc.2", "c3", "_pre4", "alpha"),
    ("", "-1", ".post2", "r3", ".rev"),
    ("", ".dev0", "dev", "-dev3"),
    ("", "+local", "+1", "+a.1", "+a-2", "+1.b"),
)


def test_versions_are_ordered_as_by_packaging() -> None:
    texts = ["".join(parts) for parts in itertools.product(*PARTS)]
    some = random.Random(1).sample(texts, 700)  # noqa: S311
    for one, other in itertools.pairwise(some):
        first, second = version_key(one), version_key(other)
        assert first and second, (one, other)
        assert (first < second) == (Version(one) < Version(other)), (one, other)
        assert (first == second) == (Version(one) == Version(other)), (one, other)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1.", ".1", "1..2", "1.0+", "1.0+a..b", "1.0-", "1.0post1post2", "1.0 ", "\u0661.0"],
)
def test_what_is_no_version_has_no_place(text: str) -> None:
    assert version_key(text) is None
    if text != "1.0 ":
        with pytest.raises(InvalidVersion):
            Version(text)


@pytest.mark.parametrize("text", ["9" * 5000, "1." * 3000 + "1", "1.0+" + "a." * 3000 + "a"])
def test_a_long_one_costs_nothing(text: str) -> None:
    assert version_key(text) is None


TARGET = "a_package-2.0-py3-none-any.whl"


def before(target: str, *names: str) -> str | None:
    file = parse_file(target)
    assert file
    found = earlier_file(file, names)
    return found.name if found else None


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["a_package-1.9-py3-none-any.whl", "a_package-1.10-py3-none-any.whl"], 1),
        (["A.Package-1.0-py3-none-any.whl", TARGET, "a_package-2.1-py3-none-any.whl"], 0),
        (["a_package-1.0-py3-none-any.whl", "a_package-2.0rc1-py3-none-any.whl"], 0),
        (["a_package-2.0rc1-py3-none-any.whl", "a_package-2.0a1-py3-none-any.whl"], 0),
        (["b-1.0-py3-none-any.whl", "a-package-1.0.tar.gz", "a_package.whl", "a-1.0.egg"], None),
        ([TARGET, "a_package-2.0.0-py3-none-any.whl"], None),
        ([], None),
    ],
)
def test_the_release_before_has_the_same_kind_of_file(names: list[str], wanted: int | None) -> None:
    assert before(TARGET, *names) == (None if wanted is None else names[wanted])


def test_a_pre_release_came_after_one_of_its_own_kind() -> None:
    names = ["a_package-1.0-py3-none-any.whl", "a_package-2.0a1-py3-none-any.whl"]
    assert before("a_package-2.0b1-py3-none-any.whl", *names) == names[1]


def test_of_many_wheels_the_one_for_the_same_machine_is_taken() -> None:
    names = [
        "x-1.0-cp311-cp311-win_amd64.whl",
        "x-1.0-cp310-cp310-manylinux_2_17_x86_64.whl",
        "x-1.0-2-cp311-cp311-manylinux_2_17_x86_64.whl",
        "x-1.0-py3-none-any.whl",
    ]
    assert before("x-1.1-cp311-cp311-manylinux_2_17_x86_64.whl", *names) == names[2]
    assert before("x-1.1-cp312-cp312-manylinux_2_17_x86_64.whl", *names) in names[1:3]
    assert before("x-1.1-py3-none-any.whl", *names) == names[3]


def test_source_distributions_may_have_dashes_in_their_names() -> None:
    names = ["a-package-1.0.zip", "a-package-1.2.tar.gz", "a-package-extra-1.9.tar.gz"]
    assert before("a-package-2.0.tar.gz", *names) == names[1]
