"""The folder of shared memory: what is not ours, races, and leftovers of the dead."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import logging
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pvapy_stream.errors import TransportError
from pvapy_stream.settings import ShmSettings
from pvapy_stream.transport.shm import ShmPublisher, ShmReceiver, has_publisher, nodes, user_folder
from pvapy_stream.transport.shm.peer_directory import PeerDirectory, new_key
from pvapy_stream.transport.shm.peer_file import (
    PUBLISHER,
    SUBSCRIBER,
    PublisherInfo,
    SubscriberInfo,
    SubscriberState,
)
from tests.support import rounds, wait_until
from tests.transport.pairs import Ids, make_object


@pytest.fixture
def shm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of shared memory of this test alone; the samples are where they always are."""
    monkeypatch.setattr(user_folder, "SHM", tmp_path)
    monkeypatch.setattr(user_folder, "_warned", set())
    # The prefix tells the leftovers of this test from those of others.
    monkeypatch.setattr(nodes, "PREFIX", f"pvt{new_key()[:8]}_")
    yield tmp_path
    tidy(nodes.PREFIX)


def tidy(prefix: str) -> None:
    """Remove what iceoryx2 has once for each prefix."""
    for path in Path("/dev/shm").glob(f"{prefix}*"):
        path.unlink()


def samples() -> list[str]:
    """Files of iceoryx2 of this test in shared memory."""
    return [path.name for path in Path("/dev/shm").glob(f"{nodes.PREFIX}*")]


def leftovers() -> list[str]:
    """All files of this test but those that every user has once."""
    here = [str(path) for path in user_folder.path().rglob("*") if not path.is_dir()]
    rooms = [str(path) for path in user_folder.path().glob("rooms/*")]
    nodes = [str(path) for path in user_folder.path().glob("iceoryx2/nodes/*")]
    return [*here, *rooms, *nodes, *(n for n in samples() if not n.endswith(".global_mgmt"))]


class Meeting:
    """A publisher and a receiver of a channel that meet in the folder."""

    def __init__(self, channel: str) -> None:
        self.channel = channel
        self.ids = Ids()
        self.looks = 0
        self.publisher = ShmPublisher(channel, ShmSettings.of(shm_timeout=0.2))
        self.receiver = ShmReceiver(channel)

    def __enter__(self) -> Meeting:
        # Both look around many times beside what lies there.
        names = self.publisher._directory.names

        def counted(kind: str) -> list[str]:
            self.looks += 1
            return names(kind)

        self.publisher._directory.names = counted
        self.publisher.start()
        self.publisher.open(make_object(0))
        self.receiver.start(self.ids)
        wait_until(lambda: self.publisher.subscribers)
        return self

    def work(self) -> None:
        first = self.looks
        for number in range(1, 6):
            self.publisher.publish(make_object(number))
        wait_until(lambda: self.ids.new == [1, 2, 3, 4, 5])
        wait_until(lambda: self.looks > first + 5)
        assert self.publisher.counts().errors == self.receiver.counts().errors == 0

    def __exit__(self, *_: object) -> None:
        self.receiver.stop(5)
        self.publisher.stop()


# -- what is not ours ----------------------------------------------------------------------------

Put = Callable[[Path, Path], None]


def _of_another_owner(path: Path, outside: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    path.write_bytes(bytes(4096))
    os.chown(path, 12345, 12345)


def _hard_link(path: Path, outside: Path) -> None:
    path.hardlink_to(outside / "file")


GARBAGE: dict[str, Put] = {
    "empty": lambda path, outside: path.touch(),
    "zeros": lambda path, outside: path.write_bytes(bytes(8192)) and None,
    "link to itself": lambda path, outside: path.symlink_to(path.name),
    "link to a file": lambda path, outside: path.symlink_to(outside / "file"),
    "link to a folder": lambda path, outside: path.symlink_to(outside),
    "dead link": lambda path, outside: path.symlink_to(outside / "nothing"),
    "hard link": _hard_link,
    "pipe": lambda path, outside: os.mkfifo(path),
    "folder": lambda path, outside: path.mkdir(),
    "owner": _of_another_owner,
}


def _names(publisher: str) -> list[str]:
    return [
        "p-x", "s-x", "w-x", ".x", "other", f"p-{new_key()}", f"s-{publisher}-{new_key()}",
        f"s-{publisher}-x", f"w-{new_key()}",
    ]  # fmt: skip


def _state(top: Path) -> dict[str, Any]:
    found = {}
    for path in [top, *top.rglob("*")]:
        state = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(state.st_mode) else b""
        found[str(path)] = (state.st_mode, state.st_ino, state.st_uid, content)
    return found


@pytest.mark.parametrize("kind", GARBAGE)
def test_what_is_not_ours_is_skipped_and_named_once(
    shm: Path,
    prefix: str,
    tmp_path_factory: pytest.TempPathFactory,
    caplog: pytest.LogCaptureFixture,
    kind: str,
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    for name in ("file", f"p-{new_key()}", f"s-{new_key()}-{new_key()}", f"w-{new_key()}"):
        (outside / name).write_bytes(bytes(4096))
    put = GARBAGE[kind]
    rooms = user_folder.subfolder("rooms")
    channel = f"{prefix}shm"
    theirs = PeerDirectory(f"{prefix}other").path
    theirs.mkdir()
    put(rooms / "x", outside)
    put(rooms / new_key(), outside)
    put(theirs / "p-x", outside)
    before = _state(outside)
    with Meeting(channel) as meeting:
        mine = PeerDirectory(channel).path
        put_there = []
        for name in _names(meeting.publisher._key):
            put(mine / name, outside)
            put_there.append(mine / name)
        with contextlib.suppress(FileExistsError):
            put(mine / f"s-{meeting.publisher._key}-{meeting.receiver._key}x", outside)
        meeting.work()
        with Meeting(f"{prefix}second") as second:
            second.work()
        assert has_publisher(channel)
    assert _state(outside) == before
    told = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(told) == len(set(told)) <= 21, told
    for path in put_there:
        # What could be of a dead process of ours is removed; all else is left where it was.
        gone = not os.path.lexists(path)
        named = sum(f"{path} " in text for text in told)
        assert named <= 1
        assert gone or named or path.name[0] not in "ps", (path, told)


def test_the_folder_of_a_channel_is_made_where_something_else_lay(
    shm: Path, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "file").touch()
    user_folder.subfolder("rooms")
    before = _state(outside)
    for number, kind in enumerate(("empty", "link to itself", "link to a folder", "pipe")):
        channel = f"{prefix}{number}"
        GARBAGE[kind](PeerDirectory(channel).path, outside)
        with Meeting(channel) as meeting:
            meeting.work()
    assert _state(outside) == before


@pytest.mark.parametrize("name", ["rooms", "iceoryx2"])
def test_a_folder_that_leads_elsewhere_is_refused(
    shm: Path, tmp_path_factory: pytest.TempPathFactory, name: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (user_folder.private_folder() / name).symlink_to(outside)
    publisher, receiver = ShmPublisher("any", ShmSettings()), ShmReceiver("any")
    for start in (publisher.start, lambda: receiver.start(print)):
        with pytest.raises(TransportError, match=f"{name} is not a folder of this user alone"):
            start()
    assert [*outside.iterdir()] == []
    assert nodes.node._users == 0


class _Odd(msgspec.Struct):
    """A description as another program may write it."""

    key: Any
    file: str
    pid: int = 1

    @property
    def name(self) -> str:
        return self.file


def test_false_publishers_and_subscribers_are_skipped(
    shm: Path, prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    channel = f"{prefix}shm"
    with Meeting(channel) as meeting, contextlib.ExitStack() as stack:
        directory, key = PeerDirectory(channel), meeting.publisher._key
        false: list[Any] = [
            _Odd("../../../x", f"p-{new_key()}"),
            _Odd(7, f"p-{new_key()}"),
            _Odd(new_key(), f"p-{new_key()}"),
            _Odd(["deep"] * 100, f"p-{new_key()}"),
            _Odd("x", f"s-{key}-{new_key()}"),
            PublisherInfo(new_key(), 1),
            SubscriberInfo(new_key(), key, 1, queue=4),
        ]
        made: list[Any] = [
            directory.create(PUBLISHER if one.name.startswith("p-") else SUBSCRIBER, one)
            for one in false
        ]
        for one in made:
            stack.callback(one.close, remove=True)
        # One says nothing, one is no longer what it was, and one says it is ready and never takes.
        ctypes.memset(ctypes.addressof(made[2].counters), 255, 128)
        made[-1].counters.state = SubscriberState.READY
        late = Ids()
        receiver = ShmReceiver(channel)
        receiver.start(late)
        stack.callback(receiver.stop)
        wait_until(lambda: meeting.publisher.subscribers == 3)
        meeting.work()
        wait_until(lambda: late.new == [1, 2, 3, 4, 5])
        for place in made[:5]:
            # Once by each of those that follow such files: two receivers name it in one process.
            assert caplog.text.count(str(place.path)) == 1, caplog.text
    assert caplog.text.count("WARNING") + caplog.text.count("ERROR") < 12, caplog.text


def test_the_rights_of_what_a_link_leads_to_stay(
    shm: Path, prefix: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "file"
    outside.touch(mode=0o644)
    link = Path("/dev/shm") / f"{nodes.PREFIX}x.global_mgmt"
    link.symlink_to(outside)
    try:
        before = stat.S_IMODE(outside.stat().st_mode)
        with Meeting(f"{prefix}shm") as meeting:
            meeting.work()
        assert stat.S_IMODE(outside.stat().st_mode) == before
        assert link.is_symlink()
    finally:
        link.unlink()


def test_a_folder_that_others_may_enter_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(user_folder, "SHM", tmp_path)
    theirs = user_folder.private_folder()
    theirs.chmod(0o777)
    with pytest.raises(TransportError, match="not a folder of this user alone"):
        ShmPublisher("any", ShmSettings()).start()


# -- races and the dead --------------------------------------------------------------------------


def test_peer_files_are_created_while_others_remove_empty_directories(
    shm: Path, prefix: str
) -> None:
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            PeerDirectory(f"{prefix}other").sweep()

    sweepers = [threading.Thread(target=sweep) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        for number in range(300):
            mine, key = PeerDirectory(f"{prefix}{number % 3}"), new_key()
            # Its folder does not exist, or is empty, and nobody knows that a file is about to come.
            entered = mine.create(PUBLISHER, PublisherInfo(key, 1))
            wakeup = mine.create_wakeup(key)
            assert entered.path.exists()
            wakeup.notify()
            entered.close(remove=True)
            wakeup.close()
            mine.remove_if_empty()
    finally:
        stop.set()
        for sweeper in sweepers:
            sweeper.join(60)
    assert leftovers() == []


def test_who_is_stopped_while_it_has_a_lock_keeps_nobody_out(shm: Path, prefix: str) -> None:
    # As processes have them that were stopped while they created a file or removed a folder.
    for how in (fcntl.LOCK_SH, fcntl.LOCK_EX):
        file = user_folder.open_folder(user_folder.subfolder("rooms"))
        assert file is not None
        fcntl.flock(file, how)
        with Meeting(f"{prefix}{how}") as meeting:
            meeting.work()
        os.close(file)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("others", ["alone", "beside"])
def test_who_is_killed_or_stopped_at_any_instant_leaves_nothing(
    tmp_path: Path, others: str
) -> None:
    prefix = f"pvt{new_key()[:8]}_"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.transport.kills",
            tmp_path,
            prefix,
            "7",
            str(rounds(3)),
            others,
        ],
        capture_output=True,
        text=True,
        timeout=280,
    )
    tidy(prefix)
    assert done.returncode == 0, done.stderr
    first, *wrong = reversed(done.stdout.splitlines())
    assert first.startswith("rounds: "), done.stderr
    assert not wrong, done.stdout + done.stderr
