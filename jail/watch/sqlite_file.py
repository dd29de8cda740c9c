"""Writes a small SQLite database, as browsers keep them: a page for each table.

By hand, since the library for it is C code that would be loaded before the watch gives root up.
The format: sqlite.org, Database File Format.
"""

from collections.abc import Mapping, Sequence

DATABASE_PAGE_BYTES = 4096
HEADER_BYTES = 100
LEAF_OF_TABLE = 13
SQLITE_VERSION = 3_045_001
UTF_8 = 1

TableRow = Sequence[int | str | bytes]


def variable_number(number: int) -> bytes:
    """Seven bits a byte, the highest first; all bytes but the last have the eighth bit set.

    >>> variable_number(300).hex()
    '822c'
    """
    found = [number & 0x7F]
    while number > 0x7F:
        number >>= 7
        found.append(number & 0x7F | 0x80)
    return bytes(reversed(found))


def row_record(row: TableRow) -> bytes:
    """The types of the values, then the values."""
    types, body = b"", b""
    for value in row:
        match value:
            case int():
                types += variable_number(6)
                body += value.to_bytes(8, "big", signed=True)
            case str():
                data = value.encode()
                types += variable_number(13 + 2 * len(data))
                body += data
            case bytes():
                types += variable_number(12 + 2 * len(value))
                body += value
    return variable_number(len(types) + 1) + types + body


def page_of_rows(rows: Sequence[TableRow], first_byte: int = 0) -> bytes:
    """A page with a table's rows, which must fit in it: their cells stand at its end.

    Args:
        first_byte: where the page begins behind what else it has.
    """
    page = bytearray(DATABASE_PAGE_BYTES)
    start, places = DATABASE_PAGE_BYTES, b""
    for number, row in enumerate(rows, 1):
        data = row_record(row)
        cell = variable_number(len(data)) + variable_number(number) + data
        start -= len(cell)
        page[start : start + len(cell)] = cell
        places += start.to_bytes(2, "big")
    head = bytes([LEAF_OF_TABLE, 0, 0]) + len(rows).to_bytes(2, "big")
    head += start.to_bytes(2, "big") + bytes(1) + places
    page[first_byte : first_byte + len(head)] = head
    return bytes(page)


def database(tables: Mapping[str, tuple[str, Sequence[TableRow]]], changes: int) -> bytes:
    """The file. `tables`: columns and rows by the name; `changes`: how often it was changed.

    No column may ask for an index (UNIQUE, PRIMARY KEY).

    >>> database({"meta": ("key TEXT, value TEXT", [("version", "39")])}, 7)[:15]
    b'SQLite format 3'
    """
    schema = [
        ("table", name, name, number, f"CREATE TABLE {name} ({columns})")
        for number, (name, (columns, _)) in enumerate(tables.items(), 2)
    ]
    pages = [page_of_rows(schema, HEADER_BYTES)]
    pages += [page_of_rows(rows) for _, rows in tables.values()]
    head = (
        b"SQLite format 3\0" + DATABASE_PAGE_BYTES.to_bytes(2, "big") + bytes([1, 1, 0, 64, 32, 32])
    )
    counts = (changes, len(pages), 0, 0, len(tables), 4, 0, 0, UTF_8)
    head += b"".join(count.to_bytes(4, "big") for count in counts)
    head = head.ljust(92, b"\0") + changes.to_bytes(4, "big") + SQLITE_VERSION.to_bytes(4, "big")
    return head + b"".join(pages)[HEADER_BYTES:]
