"""The variables of EPICS that keep all on this machine, and machines that need them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pvapy_stream.cli.main import main
from pvapy_stream.pva.net.environment import LOOPBACK

LOOPBACK_UP = (
    "import fcntl, socket, struct;"
    " fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14s', b'lo', 0x49, b''))"
)


def test_a_shell_takes_the_variables(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env"]) == 0
    script = capsys.readouterr().out
    done = subprocess.run(
        ["sh", "-c", f"{script} env"], env={"PATH": os.environ["PATH"]},
        capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    assert {f"{name}={value}" for name, value in LOOPBACK.items()} <= set(done.stdout.split("\n"))
    assert main(["env", "--shell", "csh"]) == 0
    assert 'setenv EPICS_PVA_ADDR_LIST "127.0.0.1"' in capsys.readouterr().out


def without_network(*words: str) -> subprocess.CompletedProcess[str]:
    """A command on a machine that has loopback alone: without variables of EPICS, and with them.

    The two are separated by a line on standard error.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("EPICS_")}
    code = (
        f"{LOOPBACK_UP}; import os, sys; from pvapy_stream.cli.main import main; code = main();"
        f" sys.stderr.write('--\\n'); os.environ.update({LOOPBACK}); main(); sys.exit(code)"
    )
    return subprocess.run(
        ["unshare", "-rn", sys.executable, "-c", code, *words],
        env=plain, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode != 0,
    reason="this machine lets nobody have a network of his own",
)
@pytest.mark.parametrize(
    "words",
    [
        ("sim", "-cn", "i", "-rt", "1", "-rp", "0", "-dc", "-std", "0", "-shd", "0"),
        ("mirror", "-cm", "(m,i)", "-rt", "1"),
        ("consumer", "-ic", "i", "-rt", "1"),
    ],
)
def test_a_machine_with_loopback_alone(words: tuple[str, ...]) -> None:
    done = without_network(*words)
    assert done.returncode == 1
    without, line, given = done.stderr.partition("--\n")
    assert line
    assert without.splitlines() == [
        "error: this machine has only the loopback network interface, which PVAccess does not use"
        ' by default; give: eval "$(pvapy-stream env)"'
    ]
    assert "interface" not in given
