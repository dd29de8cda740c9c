"""What is compiled after an installation, and what is left as it is."""

from importlib.util import cache_from_source
from pathlib import Path

from jail.inside.compiling import compile_installed


def lay(folder: Path, name: str, text: str) -> Path:
    path = folder / "lib" / "python3" / "site-packages" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def is_compiled(path: Path) -> bool:
    return Path(cache_from_source(str(path))).exists()


def test_all_sources_are_compiled(tmp_path: Path) -> None:
    paths = [lay(tmp_path, f"s/m{number}.py", f"x = {number}") for number in range(7)]
    compile_installed(str(tmp_path))
    assert all(map(is_compiled, paths))


def test_one_that_is_wrong_costs_no_other(tmp_path: Path) -> None:
    wrong = [lay(tmp_path, f"s/a{number}.py", "x =") for number in range(2)]
    right = [lay(tmp_path, f"s/b{number}.py", "x = 1") for number in range(2)]
    compile_installed(str(tmp_path))
    assert not any(map(is_compiled, wrong))
    assert all(map(is_compiled, right))


def test_what_comes_compiled_is_left(tmp_path: Path) -> None:
    source = lay(tmp_path, "s.py", "x = 1")
    came = Path(cache_from_source(str(source)))
    came.parent.mkdir()
    came.write_bytes(b"as it came")
    compile_installed(str(tmp_path))
    assert came.read_bytes() == b"as it came"


def test_a_source_that_an_extension_module_hides_is_left(tmp_path: Path) -> None:
    hidden = lay(tmp_path, "s/fast.py", "x = 1")
    lay(tmp_path, "s/fast.cpython-311-x86_64-linux-gnu.so", "")
    beside = lay(tmp_path, "s/faster.py", "x = 1")
    compile_installed(str(tmp_path))
    assert not is_compiled(hidden)
    assert is_compiled(beside)


def test_tests_are_left(tmp_path: Path) -> None:
    own = lay(tmp_path, "s/tests/test_s.py", "x = 1")
    compile_installed(str(tmp_path))
    assert not is_compiled(own)
