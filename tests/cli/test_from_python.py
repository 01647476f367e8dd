"""`pvapy_stream.run`: programs from Python, as scripts of users run them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import pvapy_stream
from pvapy_stream.cli.from_python import COMMAND_OF
from pvapy_stream.cli.main import commands, load
from pvapy_stream.cli.settings_command import SettingsCommand
from pvapy_stream.errors import SettingsError
from pvapy_stream.processors import PassThrough
from tests.support import PATIENCE, Commands

N = 30

_CONSUMERS = """
import os
import sys
import threading
import time
from pathlib import Path

import pvapy_stream
from pvapy_stream import ConsumerSettings, Frame, FrameProcessor

seen = Path(sys.argv[2])


class Mine(FrameProcessor):
    def process_frame(self, frame: Frame) -> Frame | None:
        with seen.open("a") as file:
            file.write(f"{frame.id} {os.getpid()}\\n")
        return None


def enough(stop):
    while not seen.exists() or len(seen.read_text().splitlines()) < NUMBER:
        time.sleep(0.02)
    stop.set()


if __name__ == "__main__":
    stop = threading.Event()
    threading.Thread(target=enough, args=(stop,), daemon=True).start()
    settings = ConsumerSettings(
        input_channel=sys.argv[1],
        input_mode="shm",
        n_consumers=int(sys.argv[3]),
        distributor_group="g",
        distributor_trigger="uniqueId",
        ledger=sys.argv[4],
        disable_curses=True,
    )
    code = pvapy_stream.run(settings, Mine, stop=stop)
    print("code", code, "again", pvapy_stream.run(settings.replace(runtime=0.1), Mine))
    sys.exit(code)
""".replace("NUMBER", str(N))


def script(tmp_path: Path, text: str, *args: object) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "script.py"
    file.write_text(text)
    return subprocess.run(
        [sys.executable, str(file), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@pytest.mark.parametrize("n_consumers", [1, 2])
def test_a_class_of_the_script_is_run(
    prefix: str, commands: Commands, tmp_path: Path, n_consumers: int
) -> None:
    channel = f"{prefix}:image"
    commands(
        *("sim", "-cn", channel, "-om", "shm", "-nx", "8", "-ny", "8", "-fps", "200"),
        *("--wait-for-clients", str(n_consumers), "--n-publish", str(N), "-rt", str(PATIENCE)),
    )
    seen, ledger = tmp_path / "seen", tmp_path / "ledger.json"
    ended = script(tmp_path, _CONSUMERS, channel, seen, n_consumers, ledger)
    assert ended.returncode == 0, ended.stderr
    # By then its source has ended.
    assert "code 0 again 1" in ended.stdout
    lines = [line.split() for line in seen.read_text().splitlines()]
    assert sorted(int(number) for number, _ in lines) == list(range(1, N + 1))
    assert len({process for _, process in lines}) == n_consumers


def test_signals_stop_it(prefix: str, tmp_path: Path) -> None:
    text = (
        "import signal, sys, pvapy_stream\n"
        "from pvapy_stream import SimulatorSettings\n"
        "before = signal.getsignal(signal.SIGINT)\n"
        "settings = SimulatorSettings(channel_name=sys.argv[1], n_x_pixels=8, n_y_pixels=8,\n"
        "    frame_rate=100, runtime=600, report_period=10)\n"
        "print(pvapy_stream.run(settings), signal.getsignal(signal.SIGINT) is before)\n"
    )
    file = tmp_path / "script.py"
    file.write_text(text)
    with subprocess.Popen(
        [sys.executable, str(file), f"{prefix}:image"], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, first + rest
    assert rest.splitlines()[-1] == "0 True"


def test_settings_of_every_command_are_known() -> None:
    models = {
        command.model.__name__: name
        for name in commands()
        if isinstance(command := load(name).COMMAND, SettingsCommand)
    }
    assert models == COMMAND_OF


class Nested:
    class Inner(PassThrough):
        pass


def test_what_cannot_be_run_is_refused() -> None:
    consumer = pvapy_stream.ConsumerSettings(input_channel="a:channel")
    with pytest.raises(SettingsError, match="FileSettings has no program; run one of AdWriter"):
        pvapy_stream.run(pvapy_stream.FileSettings(output="a.h5"))
    with pytest.raises(
        SettingsError, match=r"Nested\.Inner is not a class at the top level of a module"
    ):
        pvapy_stream.run(consumer, Nested.Inner)
    with pytest.raises(SettingsError, match="SimulatorSettings takes no processor"):
        pvapy_stream.run(pvapy_stream.SimulatorSettings(channel_name="a:channel"), PassThrough)
    with pytest.raises(SettingsError, match=r"both a processor and processor_class 'a\.B'"):
        pvapy_stream.run(consumer.replace(processor_class="a.B"), PassThrough)
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            pvapy_stream.run(consumer)
        except SettingsError as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join(PATIENCE)
    assert "in the main thread" in str(errors[0])


def test_all_public_names_are_there() -> None:
    """What is imported late is there, and is what its module says."""
    program = (
        "import json, pvapy_stream; print(json.dumps({name: getattr(pvapy_stream, name).__module__"
        " for name in pvapy_stream.__all__ if not name.startswith('_')}))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    homes = json.loads(shown)
    assert set(homes) == {name for name in pvapy_stream.__all__ if not name.startswith("_")}
    assert all(home.startswith("pvapy_stream.") for home in homes.values())
    assert homes["UserMpDataProcessor"] == "pvapy_stream.hpc.worker_process"
