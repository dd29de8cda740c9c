"""The names of modules on their way into the jail: packed by watch, read by the worker."""

import doctest
import hashlib

import pytest

from jail.inside.words import read_names
from jail.orders import ARGUMENT, MAX_PACKET_BYTES
from jail.watch import packing
from jail.watch.packing import MAX_NAMES_BYTES, MAX_NAMES_WORD_BYTES, pack_names


def test_the_examples_in_the_functions_hold() -> None:
    assert doctest.testmod(packing).failed == 0
    assert doctest.testmod(packing).attempted >= 2


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["a"],
        ["a", "b.c", "b.d", "a.b.c:X", "a.b.d", "z", "y", "b.e"],
        ["a:x", "b", "c:d.e", "f"],
        ["é.ß", "é.x"],
        [f"junk{number}" for number in range(5200)],
        [f"é.deep.down.part{number % 30}.module{number}:x.y" for number in range(1500)],
        # As many as plotly has, and as long.
        [f"plotly.validators.a{number % 90}.b{number % 70}._c{number}" for number in range(15_300)],
    ],
)
def test_packed_names_are_the_same_when_they_are_read(names: list[str]) -> None:
    words, left_out = pack_names(names)
    assert (read_names(words), left_out) == (names, 0)
    assert all(len(word) <= MAX_NAMES_WORD_BYTES and ARGUMENT.fullmatch(word) for word in words)


def test_names_that_do_not_fit_are_counted() -> None:
    """There is room for the rest of a packet beside as many as fit."""
    names = [f"m{hashlib.sha256(bytes([n >> 8, n & 255])).hexdigest()}" for n in range(6000)]
    words, left_out = pack_names(names)
    assert sum(map(len, words)) <= MAX_NAMES_BYTES + len(words) < MAX_PACKET_BYTES
    assert read_names(words) == names[: len(names) - left_out]
    assert 0 < left_out < len(names)
