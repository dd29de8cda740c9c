"""What pip could not take anyway is not offered to it, and nothing else is kept from it."""

from pathlib import Path

import pytest

from jail.watch.fitting import may_fit, python_tag


@pytest.mark.parametrize(
    "name",
    [
        "six-1.17.0-py2.py3-none-any.whl",
        "six-1.17.0.tar.gz",
        "a-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "a-1.0-cp311-cp311-musllinux_1_2_aarch64.whl",
        "a-1.0-cp311-none-linux_x86_64.whl",
        "a-1.0-2-cp36-abi3-manylinux_2_17_x86_64.whl",
        "a-1.0-cp310.cp311-cp310.cp311-manylinux_2_17_x86_64.whl",
        "a-1.0-py3-none-macosx_11_0_arm64.manylinux_2_17_x86_64.whl",
        "a-1.0-py311-none-any.whl",
        "windows-1.0-py3-none-any.whl",
        "odd.whl",
    ],
)
def test_what_pip_may_take_is_offered(name: str) -> None:
    assert may_fit(name, "cp311")


@pytest.mark.parametrize(
    "name",
    [
        "a-1.0-cp311-cp311-win_amd64.whl",
        "a-1.0-py3-none-win32.whl",
        "a-1.0-cp311-cp311-macosx_10_9_x86_64.macosx_11_0_arm64.whl",
        "a-1.0-cp36-abi3-macosx_11_0_arm64.whl",
        "a-1.0-cp312-cp312-manylinux_2_17_x86_64.whl",
        "a-1.0-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl",
    ],
)
def test_what_no_jail_can_take_is_not(name: str) -> None:
    assert not may_fit(name, "cp311")
    # Where it is not known which Python there is, all is offered.
    assert may_fit(name, "")


def test_the_tag_of_the_interpreter(tmp_path: Path) -> None:
    assert python_tag(tmp_path) == ""
    (tmp_path / "lib" / "python3.13").mkdir(parents=True)
    assert python_tag(tmp_path) == "cp313"
