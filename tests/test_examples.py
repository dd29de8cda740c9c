"""The examples that stand in the code come to what they say."""

import doctest
import importlib

import pytest
from test_house import SOURCES

ROOMS = [name for name, source in SOURCES.items() if ">>> " in source]


@pytest.mark.parametrize("name", ROOMS)
def test_the_examples_of_a_room_are_true(name: str) -> None:
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
