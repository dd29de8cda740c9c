"""The vocabulary between the rooms: what is taken, and what is refused."""

import json
from typing import Any

import pytest
from test_keeper import ODD_ORDERS, ORDER
from watches import MALFORMED

from jail import orders
from jail.orders import JailSettings, Kill, Order, OrderError, Start


def packet(said: object) -> bytes:
    return said if isinstance(said, bytes) else json.dumps(said).encode()


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"task": "hosts"},
        {"version": "1!2.0rc1.post3.dev4+local.5"},
        {"package_name": "a" * 200},
        {"mode": "execute", "file_path": "pkg/a b..c.py"},
        {"mode": "execute", "file_path": "./-x.py"},
        {"mode": "execute", "entrypoint": "pkg.mod:Class.run"},
        {"mode": "execute_module", "module_name": "pkg.mod"},
        {"artifact": "sdist", "file_path": None},
        {"artifact": "pkg-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"},
    ],
)
def test_an_order_is_taken_as_it_is(more: dict[str, Any]) -> None:
    said = ORDER | more
    assert orders.parse_order(packet(said)) == Order(**said)


@pytest.mark.parametrize("name", ODD_ORDERS)
def test_an_odd_order_is_refused(name: str) -> None:
    with pytest.raises(OrderError):
        orders.parse_order(packet(ODD_ORDERS[name]))


@pytest.mark.parametrize("field", orders.ORDER_FIELDS)
@pytest.mark.parametrize(
    "value", [1, 1.5, True, [], ["x"], {}, "", "\n", "x\n", "é", "a\0", "\ud800"]
)
def test_no_field_takes_what_is_no_word(field: str, value: object) -> None:
    with pytest.raises(OrderError):
        orders.parse_order(packet(ORDER | {field: value}))


def test_where_an_order_is_installed() -> None:
    assert orders.parse_order(packet(ORDER)).site == "site/victim-1"


def test_a_request_is_taken_as_it_is() -> None:
    start = Start(399, ("pip", "install", "a b\n", "\udcff", "𝄞"), {"A": "b=c", "E": ""}, True)
    assert orders.parse_request(packet(start._asdict())) == start
    assert orders.parse_request(packet(Kill(0)._asdict())) == Kill(0)


@pytest.mark.parametrize("said", [said for said in MALFORMED if said != b'{"jail": 0}'])
def test_a_malformed_request_is_refused(said: bytes) -> None:
    with pytest.raises(OrderError) as refusal:
        orders.parse_request(said)
    assert len(str(refusal.value.args[0])) < 500


def test_a_refusal_names_the_jail_that_it_is_about() -> None:
    with pytest.raises(OrderError) as refusal:
        orders.parse_request(b'{"jail": 7, "launch": 1}')
    assert refusal.value.args[1:] == (7,)


def test_the_lists_of_settings_become_tuples() -> None:
    said: dict[str, Any] = dict.fromkeys(JailSettings.__annotations__, 1)
    said["package_denylist"] = ["torch", "jaxlib"]
    settings = orders.parse_settings(packet(said))
    assert settings.package_denylist == ("torch", "jaxlib")
    assert hash(settings)


def test_every_mount_of_the_policy_is_named_here() -> None:
    policy = (orders.JAIL_DIR / "nsjail.cfg").read_text()
    for path in (orders.PYTHON_IN_JAIL, orders.AUDIT_IN_JAIL):
        assert f'dst: "{path}"' in policy
    for name, place in orders.SCRATCH_FOLDERS.items():
        assert f'src: "/{name}"' in policy
        assert f'dst: "{place or f"{orders.WORK_IN_JAIL}/{name}"}"' in policy
    assert f'cwd: "{orders.HOME_IN_JAIL}"' in policy
