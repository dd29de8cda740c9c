"""The environment: the contract's defaults, every bad value in one message, no secret in any."""

from pathlib import Path

import pytest
from conftest import Snakehook

from jail.orders import JailSettings
from snakehook import JAIL_FOLDER, SETTINGS, ServiceError, Settings, load_settings

SECRET = "tok-3f9a1c-very-secret"
WEBHOOK = "https://discord.example/api/webhooks/1/hook-7b2e-very-secret"


def settings(tmp_path: Path, **variables: str) -> Settings:
    usual = {
        "API_TOKEN": SECRET,
        "DISCORD_WEBHOOK_URL": WEBHOOK,
        "STATE_DIR": str(tmp_path / "state"),
        "PIP_CACHE_DIR": str(tmp_path / "cache"),
        "JAIL_PYTHON_NAME": "/bin/sh",  # anything that exists: no jail is made here
    }
    return load_settings(usual | variables)


def complaint(tmp_path: Path, **variables: str) -> str:
    with pytest.raises(ServiceError) as raised:
        settings(tmp_path, **variables)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("max_concurrency", 2),
        ("queue_limit", 20),
        ("per_ip_rate_limit", 30),
        ("per_ip_rate_window_sec", 60),
        ("run_timeout_sec", 45),
        ("run_budget_sec", 300),
        ("decoy_internet", True),
        ("service_user", 65533),
        ("service_group", 65533),
        ("cgroup_pids_max", 128),
        ("enable_cgroup_pids_limit", True),
        ("max_download_bytes", 300_000_000),
        ("package_denylist", ("torch", "tensorflow", "jaxlib")),
        ("dns_resolvers", ("1.1.1.1", "8.8.8.8")),
        ("nsjail_user", 65534),
        ("nsjail_group", 65534),
        ("nsjail_disable_clone_newuser", True),
        ("nsjail_chroot_path", ""),
        ("nsjail_config_path", str(JAIL_FOLDER / "nsjail.cfg")),
        ("rlimit_cpu_sec", 30),
        ("rlimit_as_mb", 1024),
        ("rlimit_nofile", 1024),
        ("pip_index_url", ""),
        ("default_mode", "install"),
        ("max_disk_bytes", 1_000_000_000),
        ("log_level", "INFO"),
    ],
)
def test_default(tmp_path: Path, name: str, default: object) -> None:
    assert getattr(settings(tmp_path), name) == default


def test_the_default_python_is_the_contract_s_where_it_exists(tmp_path: Path) -> None:
    usual = Path("/usr/local/bin/python3")
    found = settings(tmp_path, JAIL_PYTHON_NAME="").jail_python_name
    assert Path(found).exists()
    assert found == str(usual) or not usual.exists()


def test_an_empty_value_is_the_default(tmp_path: Path) -> None:
    assert settings(tmp_path, MAX_CONCURRENCY="", LOG_LEVEL=" ") == settings(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_TOKEN", ""),
        ("DISCORD_WEBHOOK_URL", ""),
        ("DISCORD_WEBHOOK_URL", "not a url"),
        ("DISCORD_WEBHOOK_URL", "ftp://discord.example/x"),
        ("DISCORD_WEBHOOK_URL", "https://"),
        ("DISCORD_WEBHOOK_URL", "https://discord.example:99999/x"),
        ("DISCORD_WEBHOOK_URL", "https://[::1/x"),
        ("DISCORD_WEBHOOK_URL", "https://discord.example/api/with space"),
        ("DISCORD_WEBHOOK_URL", "https://discord.example/api/\u00e4"),
        ("MAX_CONCURRENCY", "0"),
        ("MAX_CONCURRENCY", "-1"),
        ("MAX_CONCURRENCY", "two"),
        ("MAX_CONCURRENCY", "1.5"),
        ("MAX_CONCURRENCY", "\u0663"),  # a digit to str.isdigit()
        ("MAX_CONCURRENCY", "9" * 5000),  # more digits than int() takes
        ("QUEUE_LIMIT", "-1"),
        ("PER_IP_RATE_LIMIT", "0"),
        ("PER_IP_RATE_WINDOW_SEC", "0"),
        ("RUN_TIMEOUT_SEC", "0"),
        ("RUN_BUDGET_SEC", "0"),
        ("DECOY_INTERNET", "perhaps"),
        ("SERVICE_USER", "0"),  # the service is never root's
        ("SERVICE_USER", "65534"),  # nor the jail's
        ("SERVICE_GROUP", "0"),
        ("SERVICE_GROUP", "65534"),
        ("CGROUP_PIDS_MAX", "none"),
        ("ENABLE_CGROUP_PIDS_LIMIT", "maybe"),
        ("MAX_DOWNLOAD_BYTES", "300MB"),
        ("PACKAGE_DENYLIST", "torch,not a name"),
        ("DNS_RESOLVERS", "1.1.1.1,one.one.one.one"),
        ("DNS_RESOLVERS", "1.1.1.1; drop table"),
        ("JAIL_PYTHON_NAME", "/nonexistent/python3"),
        ("NSJAIL_USER", "0"),  # the jail is never root's
        ("NSJAIL_GROUP", "0"),
        ("NSJAIL_DISABLE_CLONE_NEWUSER", "2"),
        ("NSJAIL_CHROOT_PATH", "/nonexistent/root"),
        ("NSJAIL_CONFIG_PATH", "/nonexistent/nsjail.cfg"),
        ("NSJAIL_PATH", "/nonexistent/nsjail"),
        ("RLIMIT_CPU_SEC", "0"),
        ("RLIMIT_AS_MB", "1"),
        ("RLIMIT_NOFILE", "3"),
        ("PIP_CACHE_DIR", "/proc/nowhere"),
        ("PIP_INDEX_URL", "file:///etc"),
        ("PIP_INDEX_URL", "https://user:password@index.example/simple"),
        ("INDEX_FILE_HOSTS", "files.example/path"),
        ("DEFAULT_MODE", "explode"),
        ("MAX_DISK_BYTES", "0"),
        ("STATE_DIR", "/proc/nowhere"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_bad_value_is_named(tmp_path: Path, name: str, value: str) -> None:
    (line,) = complaint(tmp_path, **{name: value}).splitlines()
    assert line.startswith(f"{name} ")
    assert line.endswith(".")


def test_every_bad_value_is_in_one_message(tmp_path: Path) -> None:
    bad = {
        "API_TOKEN": "",
        "MAX_CONCURRENCY": "0",
        "DEFAULT_MODE": "x",
        "STATE_DIR": "/proc/nowhere",
        "LOG_LEVEL": "x",
    }
    lines = complaint(tmp_path, **bad).splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(bad)


@pytest.mark.parametrize(
    "webhook",
    [
        WEBHOOK.replace("https", "gopher"),
        WEBHOOK.replace("//", "//user:hook-7b2e@"),
        WEBHOOK + "\n/x",
    ],
)
def test_no_complaint_repeats_a_secret(tmp_path: Path, webhook: str) -> None:
    text = complaint(tmp_path, DISCORD_WEBHOOK_URL=webhook, MAX_CONCURRENCY="0")
    assert "hook-7b2e" not in text
    assert "very-secret" not in text


def test_no_complaint_repeats_an_index_s_password(tmp_path: Path) -> None:
    assert "hunter2" not in complaint(
        tmp_path, PIP_INDEX_URL="https://user:hunter2@index.example/simple"
    )


def test_the_command_line_needs_neither_token_nor_webhook(tmp_path: Path) -> None:
    places = {"STATE_DIR": str(tmp_path), "PIP_CACHE_DIR": str(tmp_path)}
    assert load_settings(places, service=False).discord_webhook_url == ""


def test_the_command_line_still_checks_a_webhook_that_is_given(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="DISCORD_WEBHOOK_URL"):
        load_settings(
            {"DISCORD_WEBHOOK_URL": "nonsense", "STATE_DIR": str(tmp_path)}, service=False
        )


def test_keeper_is_told_what_it_asks_for_and_no_secret() -> None:
    told = {name.lower() for name in SETTINGS["jail"]}
    # The service finds the pip that is a dependency of its own.
    assert told | {"pip_package"} == set(JailSettings._fields)
    assert not {"api_token", "discord_webhook_url"} & told


def test_lists_may_have_spaces_and_any_spelling(tmp_path: Path) -> None:
    found = settings(
        tmp_path, PACKAGE_DENYLIST=" Torch , Tensor_Flow,, ", DNS_RESOLVERS="9.9.9.9, 2620:fe::fe"
    )
    assert found.package_denylist == ("torch", "tensor-flow")
    assert found.dns_resolvers == ("9.9.9.9", "2620:fe::fe")


@pytest.mark.parametrize(
    ("value", "meaning"), [("1", True), ("TRUE", True), ("on", True), ("0", False), ("no", False)]
)
def test_switches(tmp_path: Path, value: str, meaning: bool) -> None:
    assert settings(tmp_path, ENABLE_CGROUP_PIDS_LIMIT=value).enable_cgroup_pids_limit is meaning


def test_a_path_that_can_t_be_looked_at_is_a_bad_value_too(
    ordinary: Snakehook, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    for name in ("JAIL_PYTHON_NAME", "NSJAIL_CONFIG_PATH"):
        done = ordinary.with_settings(**{name: closed / "inside"}).run("check")
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith(f"{name} "), done.stderr


def test_without_root_state_and_cache_lie_in_the_user_s_xdg_directories(
    ordinary: Snakehook,
) -> None:
    home = Path(ordinary.environment["HOME"])
    own = {"XDG_STATE_HOME": home / "my-state", "XDG_CACHE_HOME": home / "my-cache"}
    done = ordinary.with_settings(STATE_DIR=None, PIP_CACHE_DIR=None, **own).run("check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "my-state/snakehook/python").is_dir()
    assert (home / "my-cache/snakehook").is_dir()


def test_without_root_and_xdg_variables_they_lie_in_the_home(ordinary: Snakehook) -> None:
    home = Path(ordinary.environment["HOME"])
    done = ordinary.with_settings(STATE_DIR=None, PIP_CACHE_DIR=None).run("check")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / ".local/state/snakehook/python").is_dir()
    assert (home / ".cache/snakehook").is_dir()


def test_a_directory_that_was_asked_for_is_never_swapped_for_another(tmp_path: Path) -> None:
    assert "STATE_DIR" in complaint(
        tmp_path, STATE_DIR="/proc/nowhere", XDG_STATE_HOME=str(tmp_path)
    )


@pytest.mark.parametrize("command", [("check",), ("triage", "six", "1.16.0"), ("serve",)])
def test_bad_settings_end_every_command_with_2_and_one_message(
    snakehook: Snakehook, command: tuple[str, ...]
) -> None:
    bad = {"MAX_CONCURRENCY": "none", "RUN_TIMEOUT_SEC": "-3", "LOG_LEVEL": "shout"}
    done = snakehook.with_settings(API_TOKEN=SECRET, DISCORD_WEBHOOK_URL=WEBHOOK, **bad).run(
        *command
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert sorted(line.split()[0] for line in done.stderr.splitlines()) == sorted(bad)
    assert "very-secret" not in done.stderr


def test_the_service_asks_for_token_and_webhook_together(snakehook: Snakehook) -> None:
    done = snakehook.run("serve")
    assert done.returncode == 2
    assert [line.split()[0] for line in done.stderr.splitlines()] == [
        "API_TOKEN",
        "DISCORD_WEBHOOK_URL",
    ]
