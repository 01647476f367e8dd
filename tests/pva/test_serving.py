"""Who may put to our channels: the real pvput and the binding's client try it."""

from __future__ import annotations

import getpass
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pvaccess as pva
import pytest

from pvapy_stream.errors import PvapyStreamError, SettingsError
from pvapy_stream.frame import Frame
from pvapy_stream.hpc.control_channel import ControlChannel
from pvapy_stream.pva.ntndarray import ObjectBuilder
from pvapy_stream.pva.serving import PutRights, host_readonly, host_writable, make_server
from pvapy_stream.settings import ConsumerSettings, MetadataChannel
from pvapy_stream.sim.metadata_sources import HostedMetadata
from pvapy_stream.status.channel import StatusChannel
from pvapy_stream.status.snapshot import Snapshot
from pvapy_stream.transport.hosted import HostedPublisher
from pvapy_stream.transport.pvas import PutReceiver
from tests.support import get, image, pvput, wait_until

NUMBER = {"value": pva.INT, "message": pva.STRING}
REFUSED = "is not allowed"


@pytest.fixture
def servers() -> Iterator[Callable[[], Any]]:
    """Makes PVA servers of this process, which end with the test."""
    made: list[Any] = []

    def make() -> Any:
        made.append(make_server())
        return made[-1]

    yield make
    for server in made:
        for name in list(server.getRecordNames()):
            server.removeRecord(name)
        server.stop()


def binding_put(channel: str, value: Any) -> str:
    """Put with the binding; "" or the error."""
    pv = pva.Channel(channel)
    pv.setTimeout(5)
    try:
        pv.put(value)
    except pva.PvaException as error:
        return str(error)
    return ""


def put_from_outside(channel: str, value: int) -> None:
    """Put with the binding in another process.

    The binding keeps the interpreter's lock while it sets a put up, which the server needs.
    """
    text = (
        "import pvaccess as pva; pv = pva.Channel(%r); pv.setTimeout(60);"
        "pv.put(pva.PvObject({'value': pva.INT}, {'value': %d}))"
    )
    subprocess.run([sys.executable, "-c", text % (channel, value)], check=True, timeout=60)


def assert_refuses(channel: str, field: str, value: Any, kind: Any = pva.INT) -> None:
    """Neither client may put, and what the channel holds stays as it is."""
    before = str(get(channel))
    assert REFUSED in pvput(channel, **{field: str(value)})
    assert REFUSED in binding_put(channel, pva.PvObject({field: kind}, {field: value}))
    pv = pva.Channel(channel)
    with pytest.raises(pva.PvaException, match=REFUSED):
        pv.putGet(
            pva.PvObject({field: kind}, {field: value}), f"putField({field})getField({field})"
        )
    assert str(get(channel)) == before


def test_outputs_and_status_refuse_puts_and_controls_and_inputs_take_them(
    prefix: str, servers: Callable[[], Any]
) -> None:
    first, second = servers(), servers()
    builder = ObjectBuilder()
    outputs = [HostedPublisher(one, f"{prefix}out{k}") for k, one in enumerate((first, second))]
    for output in outputs:
        output.publish(builder.build(Frame.of(1, image(1))))
    status = StatusChannel(second, f"{prefix}status", Snapshot("writer"))
    status.publish(Snapshot("writer", message="one"))
    commands: list[Any] = []
    told = threading.Event()

    def take(args: Any) -> str:
        commands.append(args)
        told.set()
        return "taken"

    ControlChannel(first, f"{prefix}control", "consumerId", 1, {"do": take}, frozenset({"do"}))
    came: list[int] = []
    receiver = PutReceiver(second, f"{prefix}in", pva.PvObject(NUMBER))
    receiver.start(lambda obj: came.append(obj["value"]))
    for output in outputs:
        assert_refuses(output.channel, "uniqueId", 987654)
    assert_refuses(status.name, "message", "hello", pva.STRING)
    # A change of structure and a restarted server change nothing of that.
    status.restructure(Snapshot("writer", user_types={"more": pva.INT}))
    status.publish(Snapshot("writer", message="two"))
    outputs[0].stop()
    first.stop()
    first.start()
    outputs[0].publish(builder.build(Frame.of(2, image(2))))
    assert_refuses(outputs[0].channel, "uniqueId", 987654)
    assert_refuses(status.name, "message", "hello", pva.STRING)
    # Our own puts reach who looks; what is meant to be put to can be put to.
    outputs[0].publish(builder.build(Frame.of(3, image(3))))
    assert get(outputs[0].channel, "uniqueId") == 3
    assert REFUSED not in pvput(f"{prefix}control", command="do", args="[1]")
    assert told.wait(10)
    assert REFUSED not in pvput(f"{prefix}in", value="5")
    put_from_outside(f"{prefix}in", 6)
    wait_until(lambda: came == [5, 6])
    assert commands == [[1]]


def test_asking_a_control_channel_to_process_runs_nothing(
    prefix: str, servers: Callable[[], Any]
) -> None:
    ran: list[str] = []
    control = ControlChannel(
        servers(), f"{prefix}control", "consumerId", 1, {"do": lambda _: ran.append("") or "done"},
        frozenset(),
    )  # fmt: skip
    pvput(control.name, command="do")
    wait_until(lambda: get(control.name, "statusMessage") == "done")
    pva.Channel(control.name).get("record[process=true]field()")
    pvput(control.name, command="do")
    wait_until(lambda: len(ran) == 2)
    wait_until(lambda: get(control.name, "statusMessage") == "done")


def test_channels_of_a_users_processor_stay_open(prefix: str, servers: Callable[[], Any]) -> None:
    server = servers()
    came: list[int] = []
    server.addRecord(f"{prefix}own", pva.PvObject(NUMBER), lambda obj: came.append(obj["value"]))
    pvput(f"{prefix}own", value="4")
    wait_until(lambda: came == [4])


@pytest.mark.parametrize(
    ("clients", "taken"),
    [
        (("127.0.0.1",), True),
        (("localhost",), True),
        ((f"{getpass.getuser()}@127.0.0.1",), True),
        ((f"{getpass.getuser()}@*",), True),
        (("192.0.2.1", f"{getpass.getuser()}@127.0.0.1"), True),
        (("192.0.2.1",), False),
        ((f"{getpass.getuser()}@192.0.2.1",), False),
        (("nobody-else@*",), False),
    ],
)
def test_control_from(
    prefix: str, servers: Callable[[], Any], clients: tuple[str, ...], taken: bool
) -> None:
    came: list[int] = []
    server = servers()
    rights = PutRights(clients)
    name = f"{prefix}control"
    host_writable(server, name, pva.PvObject(NUMBER), lambda obj: came.append(obj["value"]), rights)
    host_readonly(server, f"{prefix}out", pva.PvObject(NUMBER))
    if not taken:
        assert_refuses(name, "value", 5)
        assert not came
        return
    assert REFUSED not in pvput(name, value="5")
    assert binding_put(name, pva.PvObject({"value": pva.INT}, {"value": 6})) == ""
    wait_until(lambda: came == [5, 6])
    assert_refuses(f"{prefix}out", "value", 5)


def test_an_unknown_host_and_a_wrong_client_are_named(servers: Callable[[], Any]) -> None:
    with pytest.raises(SettingsError, match=r"--control-from: .*no-such-host.invalid"):
        make_server(PutRights(("no-such-host.invalid",)))
    with pytest.raises(SettingsError, match=r"--control-from.*'a b'"):
        ConsumerSettings.of(input_channel="in", control_from="a b")
    with pytest.raises(SettingsError, match=r"--control-from.*not both"):
        ConsumerSettings.of(input_channel="in", control_from="here", access_security="file")


ACF = """
# Who may tell stages what to do
UAG(operators) {%s}
HAG(consoles) {localhost, no-such-host.invalid} # by name
ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) }
ASG(CONTROL) {
    RULE(1, READ)
    RULE(1, WRITE) { UAG(operators) HAG(consoles) }
}
"""

# Access security is one for a process, so each file is tried in a process of its own.
HOST = """
import sys, time
import pvaccess as pva
from pvapy_stream.pva.serving import PutRights, host_readonly, host_writable, make_server
rights = PutRights(file=sys.argv[1])
server = make_server(rights)
kind = {"value": pva.INT}
host_writable(server, sys.argv[2] + "control", pva.PvObject(kind), lambda obj: None, rights)
host_writable(server, sys.argv[2] + "in", pva.PvObject(kind), lambda obj: None)
host_readonly(server, sys.argv[2] + "out", pva.PvObject(kind))
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("user", [getpass.getuser(), "nobody-else"])
def test_an_access_security_file(prefix: str, tmp_path: Path, user: str) -> None:
    file = tmp_path / "rights.acf"
    file.write_text(ACF % user)
    with subprocess.Popen(
        [sys.executable, "-c", HOST, file, prefix],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        refused = REFUSED in pvput(f"{prefix}control", value="5")
        assert refused is (user == "nobody-else")
        assert REFUSED not in pvput(f"{prefix}in", value="5")
        assert REFUSED in pvput(f"{prefix}out", value="5")
        process.stdin.close()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "--access-security: cannot read"),
        ("ASG(CONTROL) { RULE(1, ", "is not an access security file"),
        ("ASG(OTHER) { RULE(1, WRITE) }", "has neither ASG(CONTROL) nor ASG(DEFAULT)"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, text: str | None, words: str) -> None:
    file = tmp_path / "rights.acf"
    if text is not None:
        file.write_text(text)
    with pytest.raises(PvapyStreamError) as caught:
        make_server(PutRights(file=str(file)))
    assert words in str(caught.value)


def test_ca_records_can_be_reached_beside_read_only_channels(
    prefix: str, servers: Callable[[], Any]
) -> None:
    server = servers()
    host_readonly(server, f"{prefix}out", pva.PvObject(NUMBER))
    metadata = HostedMetadata(
        server, [MetadataChannel(f"{prefix}ca", "ca"), MetadataChannel(f"{prefix}pva", "pva")]
    )
    try:
        metadata.publish_ca()
        pv = pva.Channel(f"{prefix}ca", pva.CA)
        pv.setTimeout(10)
        first = wait_until(lambda: pv.get()["value"])
        metadata.publish_ca()
        assert pv.get()["value"] != first
        assert_refuses(f"{prefix}pva", "value", 5.0, pva.DOUBLE)
    finally:
        metadata.stop()
