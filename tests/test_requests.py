"""What a request may say, who may send it and how often, without a network."""

from pathlib import Path
from typing import Any

import pytest

import snakehook
from snakehook import (
    Denied,
    InvalidField,
    Settings,
    TokenBuckets,
    TriageRequest,
    authorized,
    validate,
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = str(tmp_path_factory.mktemp("places"))
    places = {"STATE_DIR": folder, "PIP_CACHE_DIR": folder, "JAIL_PYTHON_NAME": "/bin/sh"}
    return snakehook.load_settings(
        {**places, "PACKAGE_DENYLIST": "torch,Tensor_Flow"}, service=False
    )


def request(settings: Settings, **fields: Any) -> TriageRequest:
    return validate({"package_name": "six", "version": "1.16.0", **fields}, settings)


def refused(settings: Settings, **fields: Any) -> str:
    """The name of the field that is to blame; the text must say the same."""
    with pytest.raises(InvalidField) as raised:
        request(settings, **fields)
    assert str(raised.value).startswith(f"{raised.value.field_name} ")
    return raised.value.field_name


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("six", "six"),
        ("Zope.Interface", "zope-interface"),
        ("a__b--c..d", "a-b-c-d"),
        ("X", "x"),
        ("2to3", "2to3"),
    ],
)
def test_a_name_in_any_spelling_is_made_canonical(
    settings: Settings, given: str, canonical: str
) -> None:
    assert request(settings, package_name=given).package_name == canonical


NO_NAMES = [
    "",
    " ",
    "-r",
    "--index-url=http://evil.example",
    "-six",
    "six-",
    ".six",
    "_six",
    "six.",
    " six",
    "six ",
    "six\n",
    "six\r\n",
    "\nsix",
    "si\nx",
    "six\t",
    "six\x00",
    "six[extra]",
    "six==1.0",
    "six>=1",
    "six;python_version>'3'",
    "six @ https://evil.example/six.whl",
    "https://evil.example/six.whl",
    "git+https://evil.example/six",
    "file:///etc/passwd",
    "./six",
    "../six",
    "/six",
    "a/b",
    "a\\b",
    "six#egg=x",
    "six%2e",
    "six,seven",
    "six seven",
    "si*",
    "$(id)",
    "\u212aeras",  # KELVIN SIGN: k to a careless regular expression
    "\u017fix",  # LONG S
    "s\u0456x",  # Cyrillic i
    "\uff53ix",  # full-width s
    "six\u200b",
    "six\u2028",
    "\ud800",  # a lone surrogate, as JSON may carry it
    "s" * 201,
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_what_is_no_name_never_passes(settings: Settings, name: str) -> None:
    assert refused(settings, package_name=name) == "package_name"


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        ("1.16.0", "1.16.0"),
        ("v1.0", "1.0"),
        ("1.0-RC1", "1.0rc1"),
        ("2!1.0.post3", "2!1.0.post3"),
        ("1.0+abc.1",) * 2,
    ],
)
def test_a_version_is_normalised(settings: Settings, given: str, normal: str) -> None:
    assert request(settings, version=given).version == normal


NO_VERSIONS = [
    "",
    "latest",
    "*",
    "1.*",
    "1.0.*",
    ">=1.0",
    "==1.0",
    "~=1.0",
    "1.0,<2",
    "1.0;extra",
    "1.0 ; python_version>'3'",
    "1.0\n",
    " 1.0",
    "1.0 ",
    "\t1.0",
    "1.0 --index-url http://evil.example",
    "1.0@https://evil.example",
    "1.0[extra]",
    "../1.0",
    "1.0/..",
    "1.0+a/../../b",
    "\u0661.0",  # ARABIC-INDIC ONE, a digit to \d
    "1.0+\u212a",
    "1" * 201,
    "-1.0",
    "1.0#sha256=0",
]


@pytest.mark.parametrize("version", NO_VERSIONS)
def test_what_is_no_exact_version_never_passes(settings: Settings, version: str) -> None:
    assert refused(settings, version=version) == "version"


@pytest.mark.parametrize("value", [None, 1, 1.0, True, [], ["six"], {}])
@pytest.mark.parametrize("field", ["package_name", "version"])
def test_the_required_fields_are_strings(settings: Settings, field: str, value: object) -> None:
    assert refused(settings, **{field: value}) == field


@pytest.mark.parametrize("body", [None, 1, "six", [], ["six", "1.16.0"], True])
def test_a_request_is_an_object(settings: Settings, body: object) -> None:
    with pytest.raises(InvalidField, match="body must be a JSON object"):
        validate(body, settings)


@pytest.mark.parametrize("body", [{}, {"package_name": "six"}, {"version": "1.0"}])
def test_a_missing_field_is_named(settings: Settings, body: dict[str, str]) -> None:
    with pytest.raises(InvalidField) as raised:
        validate(body, settings)
    assert raised.value.field_name not in body


@pytest.mark.parametrize("key", ["name", "packageName", "Version", "", "timeout", "run_id"])
def test_there_are_no_other_fields(settings: Settings, key: str) -> None:
    assert refused(settings, **{key: "x"}) == key


def test_an_unknown_field_s_name_can_t_act_in_the_answer(settings: Settings) -> None:
    with pytest.raises(InvalidField) as raised:
        request(settings, **{"\x1b[2J\u202e\ud800" + "x" * 10_000: "x"})
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 300


def test_the_mode_is_install_unless_told(settings: Settings) -> None:
    assert request(settings) == TriageRequest("six", "1.16.0", "install")


def test_the_operator_may_choose_another_default_mode(tmp_path: Path) -> None:
    places = {
        "STATE_DIR": str(tmp_path),
        "PIP_CACHE_DIR": str(tmp_path),
        "JAIL_PYTHON_NAME": "/bin/sh",
    }
    settings = snakehook.load_settings({**places, "DEFAULT_MODE": "detonate"}, service=False)
    assert request(settings).mode == "detonate"
    assert request(settings, mode="import").mode == "import"


@pytest.mark.parametrize("mode", ["install", "execute", "execute_module", "import", "detonate"])
def test_the_five_modes(settings: Settings, mode: str) -> None:
    assert request(settings, mode=mode).mode == mode


@pytest.mark.parametrize(
    "mode", ["", "Install", "start", "install ", "execute\n", "execute-module", "-", 3]
)
def test_there_is_no_other_mode(settings: Settings, mode: object) -> None:
    assert refused(settings, mode=mode) == "mode"


OWNERS = {"file_path": "execute", "entrypoint": "execute", "module_name": "execute_module"}


@pytest.mark.parametrize("field", OWNERS)
@pytest.mark.parametrize("mode", ["install", "execute", "execute_module", "import", "detonate"])
def test_a_field_goes_with_its_mode_only(settings: Settings, field: str, mode: str) -> None:
    if mode == OWNERS[field]:
        assert getattr(request(settings, mode=mode, **{field: "a"}), field) == "a"
    else:
        assert refused(settings, mode=mode, **{field: "a"}) == field


@pytest.mark.parametrize("field", OWNERS)
def test_an_optional_field_may_be_null(settings: Settings, field: str) -> None:
    assert request(settings, **{field: None}) == request(settings)


@pytest.mark.parametrize("field", OWNERS)
@pytest.mark.parametrize("value", ["", " ", 1, [], {}, False, "x" * 201, "a\nb", "\u212a", "a\x00"])
def test_an_optional_field_is_plain_text(settings: Settings, field: str, value: object) -> None:
    assert refused(settings, mode=OWNERS[field], **{field: value}) == field


def test_there_is_one_thing_to_execute(settings: Settings) -> None:
    assert refused(settings, mode="execute", file_path="a.py", entrypoint="a") == "file_path"


@pytest.mark.parametrize("path", ["a.py", "pkg/tool.py", "pkg/./tool.py", "with space.py", "-x.py"])
def test_a_file_lies_in_the_install_target(settings: Settings, path: str) -> None:
    assert request(settings, mode="execute", file_path=path).file_path == path


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "//x", "..", "../x", "a/../../x", "a/..", ".", "./", "..\\x", "C:\\x"]
)
def test_a_file_outside_of_it_is_refused(settings: Settings, path: str) -> None:
    assert refused(settings, mode="execute", file_path=path) == "file_path"


@pytest.mark.parametrize(
    "entrypoint", ["tool", "my-tool.py", "2to3", "pkg:main", "pkg.cli:App.run"]
)
def test_an_entrypoint_is_a_script_or_module_attribute(settings: Settings, entrypoint: str) -> None:
    assert request(settings, mode="execute", entrypoint=entrypoint).entrypoint == entrypoint


@pytest.mark.parametrize(
    "entrypoint",
    [
        "-c",
        "pkg:",
        ":main",
        "pkg:main()",
        "a:b:c",
        "a b",
        "a;b",
        "../x",
        "a/b",
        "pkg:1x",
        "a:b ",
        ".a",
    ],
)
def test_no_other_entrypoint_passes(settings: Settings, entrypoint: str) -> None:
    assert refused(settings, mode="execute", entrypoint=entrypoint) == "entrypoint"


@pytest.mark.parametrize("module", ["pkg", "pkg.sub", "_x", "__main__"])
def test_a_module_is_a_dotted_name(settings: Settings, module: str) -> None:
    assert request(settings, mode="execute_module", module_name=module).module_name == module


@pytest.mark.parametrize(
    "module", ["-c", "a-b", ".a", "a.", "a..b", "1a", "a/b", "a b", "a:b", "a;b", "a.py/"]
)
def test_no_other_module_passes(settings: Settings, module: str) -> None:
    assert refused(settings, mode="execute_module", module_name=module) == "module_name"


@pytest.mark.parametrize(
    "name", ["torch", "Torch", "TORCH", "tensor-flow", "Tensor.Flow", "tensor__flow"]
)
def test_the_denylist_holds_in_any_spelling(settings: Settings, name: str) -> None:
    with pytest.raises(Denied, match="denylist"):
        request(settings, package_name=name)


@pytest.mark.parametrize("name", ["torchvision", "tensorflow", "pytorch"])
def test_the_denylist_is_about_whole_names(settings: Settings, name: str) -> None:
    assert request(settings, package_name=name).package_name == name


def test_a_bad_request_for_a_denied_package_is_a_bad_request(settings: Settings) -> None:
    assert refused(settings, package_name="torch", version="*") == "version"


@pytest.mark.parametrize(
    "header", ["Bearer secret", "bearer secret", "BEARER secret", "Bearer  secret "]
)
def test_the_token_opens(header: str) -> None:
    assert authorized(header, "secret")


@pytest.mark.parametrize(
    "header",
    [
        *(
            None,
            "",
            " ",
            "Bearer",
            "Bearer ",
            "secret",
            "Basic secret",
            "Bearersecret",
            "Bearer Secret",
            "Bearer secre",
        ),
        *(
            "Bearer secre",
            "Bearer secrets",
            "Bearer secret secret",
            "Bearer secret,",
            "Token secret",
            "Bearer \x00secret",
        ),
    ],
)
def test_nothing_else_does(header: str | None) -> None:
    assert not authorized(header, "secret")


@pytest.mark.parametrize("noise", ["\u00e4", "\u00ff" * 50, "s\u00e9cret"])
def test_a_token_that_is_not_ascii_is_wrong_and_no_failure(noise: str) -> None:
    assert not authorized(f"Bearer {noise}", "secret")
    assert not authorized("Bearer secret", noise)


def test_a_token_that_is_not_ascii_works_as_the_bytes_that_a_client_sends() -> None:
    as_wsgi_has_it = "s\u00e9same".encode().decode("latin-1")
    assert authorized(f"Bearer {as_wsgi_has_it}", "s\u00e9same")


def test_tokens_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def compare(first: bytes, second: bytes) -> bool:
        compared.append((first, second))
        return first == second

    monkeypatch.setattr("hmac.compare_digest", compare)
    authorized("Bearer wrong", "secret")
    assert compared == [(b"wrong", b"secret")]


RELEASE = {"package_name": "Zope.Interface", "version": "v5.0"}


def test_the_artifact_is_what_pip_picks_unless_told(settings: Settings) -> None:
    assert request(settings).artifact is None
    assert request(settings, artifact=None).artifact is None


@pytest.mark.parametrize(
    "artifact",
    [
        "wheel",
        "sdist",
        "zope.interface-5.0.tar.gz",
        "zope_interface-5.0.zip",
        "zope.interface-5.0.0-cp311-cp311-manylinux_2_17_x86_64.whl",
        "Zope_Interface-5.0-1-py3-none-any.whl",
    ],
)
def test_an_artifact_is_a_kind_or_a_file_of_the_release(settings: Settings, artifact: str) -> None:
    for mode in ("install", "detonate"):
        found = request(settings, **RELEASE, mode=mode, artifact=artifact)
        assert found.artifact == artifact


@pytest.mark.parametrize(
    "artifact",
    [
        "",
        "Wheel",
        "egg",
        "-x.whl",
        ".whl",
        "../zope.interface-5.0.tar.gz",
        "a/zope.interface-5.0.tar.gz",
        "zope.interface-5.0.tar.gz\n",
        "zope.interface-5.0.tar.gz#sha256=0",
        "zope.interface-5.1.tar.gz",
        "zope.interfaces-5.0.tar.gz",
        "six-1.16.0-py2.py3-none-any.whl",
        "zope.interface-5.0.whl",
        "zope.interface-5.0-py3-none-any.exe",
        "https://evil.example/zope.interface-5.0.tar.gz",
        1,
        [],
    ],
)
def test_no_other_artifact_passes(settings: Settings, artifact: object) -> None:
    assert refused(settings, **RELEASE, artifact=artifact) == "artifact"


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def buckets_of(capacity: int, window_sec: float, clock: Clock) -> TokenBuckets:
    buckets = TokenBuckets(capacity, window_sec)
    buckets.clock = clock
    return buckets


def test_a_bucket_holds_its_capacity(clock: Clock) -> None:
    buckets = buckets_of(3, 60, clock)
    assert [buckets.take("peer") == 0 for _ in range(5)] == [True, True, True, False, False]


def test_it_tells_how_long_to_wait_and_no_longer(clock: Clock) -> None:
    buckets = buckets_of(3, 60, clock)
    for _ in range(3):
        buckets.take("peer")
    wait_sec = buckets.take("peer")
    assert wait_sec == pytest.approx(20)
    clock.now += wait_sec - 0.1
    assert buckets.take("peer") > 0
    clock.now += 0.2
    assert buckets.take("peer") == 0


def test_a_refused_attempt_costs_nothing(clock: Clock) -> None:
    buckets = buckets_of(1, 60, clock)
    buckets.take("peer")
    for _ in range(100):
        clock.now += 0.1
        assert buckets.take("peer") > 0
    clock.now += 50.1
    assert buckets.take("peer") == 0


def test_it_never_holds_more_than_its_capacity(clock: Clock) -> None:
    buckets = buckets_of(2, 60, clock)
    buckets.take("peer")
    clock.now += 1_000_000
    assert [buckets.take("peer") == 0 for _ in range(3)] == [True, True, False]


def test_every_peer_has_its_own(clock: Clock) -> None:
    buckets = buckets_of(1, 60, clock)
    assert buckets.take("one") == 0
    assert buckets.take("two") == 0
    assert buckets.take("one") > 0


def test_its_memory_is_bounded_whatever_addresses_come(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snakehook, "MAX_BUCKETS", 100)
    buckets = buckets_of(1, 60, clock)
    for number in range(10_000):
        buckets.take(f"2001:db8::{number:x}")
    assert len(buckets.buckets) <= 100


def test_a_peer_that_keeps_asking_is_not_forgotten_for_strangers(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snakehook, "MAX_BUCKETS", 100)
    buckets = buckets_of(1, 10_000_000, clock)
    buckets.take("flooder")
    for number in range(1000):
        buckets.take(f"2001:db8::{number:x}")
        assert buckets.take("flooder") > 0
