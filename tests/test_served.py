"""Who talked to the decoy internet, and what became of what it served."""

import base64

from jail.watch.events import Actor, Change, Code, Connection, Exec, FileChanged, NameAsked, Net
from jail.watch.payload import Search
from jail.watch.served import MAX_TOLD, SecondStages, attribute, decode_names
from jail.watch.stubs import SHELL_OR_PYTHON, Marks, text
from jail.watch.world_events import Conversation, Kept, Reply, Speaker

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYq7c31d2f0a9b"
URL = "https://c2.evil.xyz/stage2"
CURL, WGET = Actor(7, "curl x", "setup.py:3"), Actor(8, "wget x")


def conversation(target: str, number: int, net: Net = Net.TCP) -> Conversation:
    return Conversation(net, target, number, None, Reply.DECOY, Speaker.PACKAGE)


def connection(target: str, actor: Actor, net: Net = Net.TCP, listens: bool = False) -> Connection:
    return Connection(net, target, listens, None, actor)


def test_each_conversation_is_given_to_whom_the_kernel_saw() -> None:
    seen = [
        connection("1.2.3.4:80", WGET, listens=True),
        connection("1.2.3.4:80", CURL),
        connection("1.2.3.4:80", WGET),
        connection("1.2.3.4:80", CURL, Net.UDP),
    ]
    told = [conversation("1.2.3.4:80", number) for number in range(3)]
    told += [conversation("1.2.3.4:80", 0, Net.UDP), conversation("9.9.9.9:1", 0)]
    found = [event for _, event in attribute([(1.5, event) for event in told], seen)]
    actors = [event.actor for event in found if isinstance(event, Conversation)]
    assert actors == [CURL, WGET, WGET, CURL, Actor()]


def test_the_kernel_makes_an_address_of_the_old_kind_of_a_mapped_one() -> None:
    (found,) = attribute(
        [(1.5, conversation("1.2.3.4:80", 0))], [connection("[::ffff:1.2.3.4]:80", CURL)]
    )
    assert isinstance(found[1], Conversation)
    assert found[1].actor == CURL


def test_what_was_served_is_found_where_it_runs_or_is_kept() -> None:
    marks = Marks()
    stages = SecondStages(marks)
    mark = marks.mark(URL)
    script = text(SHELL_OR_PYTHON, mark).decode()
    ran = stages.of_event(Exec("/bin/true", ("/bin/true", mark), None, Actor(9, "sh", "x.py:1")))
    given = stages.of_event(Exec("/bin/sh", ("sh", "-c", script), None, CURL))
    source = Code("0" * 64, len(script), "x.py:2", False, script)
    code = SecondStages(marks).of_event(source)
    assert stages.of_event(source) is None
    file = FileChanged("/home/dev/x", Change.CREATED, 9, "x.py:3")
    kept = stages.of_file(file, script.encode())
    found = [ran, given, code, kept]
    assert [event and (event.url, event.kept, event.place) for event in found] == [
        (URL, Kept.EXECUTED, "x.py:1"),
        (URL, Kept.ARGUMENT, "setup.py:3"),
        (URL, Kept.EXECUTED, "x.py:2"),
        (URL, Kept.FILE, "x.py:3"),
    ]
    assert ran and ran.subject == "sh"
    # Once is enough.
    assert stages.of_file(file, script.encode()) is None


def test_everything_else_is_not_ours() -> None:
    stages = SecondStages(Marks())
    other = Marks().mark(URL)
    assert stages.of_event(Exec("/bin/true", ("/bin/true", other), None, CURL)) is None
    assert stages.of_event(NameAsked(other, CURL)) is None
    assert stages.of_file(FileChanged("/x", Change.CREATED, 1, None), b"") is None


def test_a_flood_of_files_is_told_in_part() -> None:
    marks = Marks()
    stages = SecondStages(marks)
    mark = marks.mark(URL).encode()
    told = [
        stages.of_file(FileChanged(f"/home/dev/{number}", Change.CREATED, 1, None), mark)
        for number in range(MAX_TOLD + 50)
    ]
    assert sum(event is not None for event in told) == MAX_TOLD


def test_bait_in_names_is_found() -> None:
    coded = base64.b32encode(f"key={SECRET}".encode()).decode().rstrip("=").lower()
    names = [f"{coded[at : at + 20]}.x.evil.xyz" for at in range(0, len(coded), 20)]
    (found,) = decode_names(names, Search({"KEY": SECRET}, {}))
    assert (found.domain, found.text, found.bait) == ("evil.xyz", f"key={SECRET}", ("KEY",))


def test_bait_that_is_cut_into_names_as_it_is_is_found() -> None:
    names = [f"{SECRET[at : at + 8].lower()}.{at}.evil.xyz" for at in range(0, len(SECRET), 8)]
    (found,) = decode_names([*names, "www.python.org"], Search({"KEY": SECRET}, {}))
    assert (found.domain, found.text, found.bait) == ("evil.xyz", "", ("KEY",))
