"""Access security files evaluated for the own server: with the same answers as the binding's."""

from __future__ import annotations

import getpass
import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream.pva.acf import write_rules
from tests.support import PATIENCE

FILE = """
UAG(operators) {alice, bob}
UAG("guests") {"carol"}
HAG(consoles) {10.0.0.1, 127.0.0.1}
ASG(DEFAULT) {
    INPA("some:pv")
    RULE(0, READ)
    RULE(1, WRITE, TRAPWRITE) { UAG(operators, guests) HAG(consoles) }
    RULE(1, WRITE) { UAG(operators) CALC("A=1") }
}
ASG(OPEN) { RULE(1, READ) RULE(1, WRITE) }
ASG(CLOSED) { RULE(1, READ) RULE(1, NONE) }
"""


@pytest.mark.parametrize(
    ("group", "user", "host", "may"),
    [
        ("DEFAULT", "alice", "127.0.0.1", True), ("DEFAULT", "carol", "10.0.0.1", True),
        ("DEFAULT", "alice", "10.0.0.2", False), ("DEFAULT", "dave", "127.0.0.1", False),
        ("DEFAULT", "", "127.0.0.1", False), ("OPEN", "", "1.2.3.4", True),
        ("CLOSED", "alice", "127.0.0.1", False),
    ],
)  # fmt: skip
def test_rules(group: str, user: str, host: str, may: bool) -> None:
    rules = write_rules(FILE, group)
    assert rules is not None
    assert rules.allow(user, host) is may


def test_a_group_that_is_not_there() -> None:
    assert write_rules(FILE, "CONTROL") is None
    assert write_rules("", "DEFAULT") is None


# Access security is one for a process, so each file is tried in a process of its own.
HOST = """
import getpass, subprocess, sys
import pvaccess as pva
from pvapy_stream.pva.serving import PutRights, make_server
from pvapy_stream.transport.pvas import PutReceiver
server = make_server(PutRights(file=sys.argv[1]))
kind = {"value": pva.INT}
server.addRecord(sys.argv[2] + "binding", pva.PvObject(kind), None)
server.start()
receiver = PutReceiver(server, sys.argv[2] + "own", pva.PvObject(kind))
receiver.start(lambda obj: None)
for name in ("binding", "own"):
    done = subprocess.run([sys.argv[3], "-w", "30", sys.argv[2] + name, "value=5"],
                          capture_output=True, text=True, timeout=60)
    print("not allowed" in done.stdout + done.stderr)
receiver.stop()
"""


@pytest.mark.parametrize("user", ["", "nobody-else"])
def test_the_own_server_refuses_what_the_binding_refuses(
    prefix: str, tmp_path: Path, user: str
) -> None:
    file = tmp_path / "rights.acf"
    file.write_text(
        f"UAG(some) {{{user or getpass.getuser()}}} # who\n"
        "ASG(DEFAULT) { RULE(1, READ) RULE(1, WRITE) { UAG(some) } }\n"
    )
    pvput = Path(sys.executable).parent / "pvput"
    done = subprocess.run(
        [sys.executable, "-c", HOST, file, prefix, pvput],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.stdout.split() == [str(bool(user))] * 2, done.stderr
