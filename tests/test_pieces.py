"""What is sent in pieces is put together, and no flood of pieces costs more than its bound."""

import json

from jail.watch.fields import MAX_FIELDS, fields_of
from jail.watch.pieces import MAX_JOINED_BYTES, MAX_PIECED, Pieces

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYq7c31d2f"
CUT = [SECRET[at : at + 8] for at in range(0, len(SECRET), 8)]


def joined(pieces: Pieces) -> list[tuple[str, int, str]]:
    return [(place, found.count, found.data.decode()) for place, found in pieces.joined()]


def test_each_part_of_a_request_is_put_together_with_those_of_the_others() -> None:
    pieces = Pieces()
    for number, part in enumerate(CUT):
        part = part.replace("/", "%2F").replace("+", "%2B")
        pieces.take_request(f"https://a.xyz/up?i={number}&d={part}", [], b"")
    assert ("https://a.xyz", len(CUT), SECRET) in joined(pieces)


def test_bodies_their_fields_paths_and_connections_are_put_together() -> None:
    pieces = Pieces()
    for number, part in enumerate(CUT):
        pieces.take_request("https://body.xyz/", [], part.encode())
        pieces.take_request(
            "https://form.xyz/", [], f"n={number}&d={part.replace('+', '%2B')}".encode()
        )
        pieces.take_request("https://json.xyz/", [], json.dumps({"n": number, "d": part}).encode())
        pieces.take_request(f"https://path.xyz/up/{part.replace('/', '_')}", [], b"")
        pieces.take("1.2.3.4:99", "1.2.3.4", [("", part.encode())])
    found = joined(pieces)
    for place in ("https://body.xyz", "https://form.xyz", "https://json.xyz", "1.2.3.4:99"):
        assert (place, len(CUT), SECRET) in found
    assert ("https://path.xyz", len(CUT), SECRET.replace("/", "_")) in found


def test_what_goes_to_several_hosts_or_ports_of_one_owner_or_in_headers_is_put_together() -> None:
    pieces = Pieces()
    for number, part in enumerate(CUT):
        value = part.replace("+", "%2B").replace("/", "%2F")
        pieces.take_request(f"https://h{number}.a.xyz/?d={value}", [("Host", "x")], b"")
        pieces.take(f"1.2.3.4:{number}", "b.xyz", [("", part.encode())])
        pieces.take_request("https://c.xyz/", [("Host", "c.xyz"), ("X-Id", part)], b"")
        pieces.take_request(f"https://d{number}.xyz/?part={value}", [], b"")
    found = joined(pieces)
    for owner in ("a.xyz", "b.xyz", "https://c.xyz", f"{len(CUT)} places"):
        assert (owner, len(CUT), SECRET) in found
    assert "hosthost" not in "".join(text for *_, text in found)


def test_floods_of_pieces_are_bounded() -> None:
    pieces = Pieces()
    for number in range(MAX_PIECED + 100):
        pieces.take_request(f"https://a{number}.xyz/", [], b"x" * 4000)
    for _ in range(100):
        pieces.take_request("https://a1.xyz/", [], b"x" * 4000)
    pieces.take_request("https://a1.xyz/", [], b"x" * 100_000)
    for fields in pieces.fields:
        assert len(fields) in (MAX_PIECED, 1)
        assert max(len(found.data) for found in fields.values()) == MAX_JOINED_BYTES


def test_odd_forms_are_taken_apart_or_left() -> None:
    assert fields_of(b'{"a": ["x", {"b": "y"}], "n": [65, 66, 67, 68, 69, 70, 71, 72]}') == [
        ("a", b"x"),
        ("b", b"y"),
        ("n", b"ABCDEFGH"),
    ]
    assert fields_of(b"a=%41+b&c=") == [("a", b"A b"), ("c", b"")]
    for odd in (b"", b"plain text", b"{", b"[" * 100_000, b'{"a": NaN}', b"\xff=\xfe\n x"):
        assert fields_of(odd) == []
    assert len(fields_of(json.dumps(["x"] * 50_000).encode())) <= MAX_FIELDS
