"""Bad input gets a clear message, a truthful status and exit code, and loses nothing else."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.cli import consumer as consumer_command
from pvapy_stream.pva.clients import listening_ports
from tests.in_process import call
from tests.support import (
    Commands,
    Source,
    get,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

FAULTY = """
from pvapy_stream import UserDataProcessor

class Init(UserDataProcessor):
    def __init__(self, configDict):
        raise RuntimeError("no such detector")

class Start(UserDataProcessor):
    def start(self):
        raise RuntimeError("cannot start")

class Process(UserDataProcessor):
    def process(self, pvObject):
        if pvObject["uniqueId"] % 2:
            raise ArithmeticError("odd")
        super().process(pvObject)

class Beside(UserDataProcessor):
    def getStats(self):
        raise KeyError("stats")
    def stop(self):
        raise OSError("cannot close")

class NoProcess:
    pass

class Changing(UserDataProcessor):
    def process(self, pvObject):
        import pvaccess as pva
        if pvObject["uniqueId"] == 2:
            self.updateOutputChannel(pva.PvObject({"other": pva.INT}, {"other": 1}))
        else:
            self.updateOutputChannel(pvObject)
"""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["-pa", "{'a': 1}"], "--processor-args: is not JSON"),
        (["-pa", "[1]"], "must be a JSON object"),
        (["-cid", "1,two"], "--consumer-id-list: '1,two' is not an id list"),
        (["-cid", "__import__('os').getcwd()"], "is not an id list"),
        (["-cid", "1,1"], "has an id twice"),
        (["-nc", "0"], "--n-consumers"),
        (["-im", "smoke"], "--input-mode: Input should be"),
        (["-mc", "pva://"], "is not a metadata channel"),
        (["-ao", "5", "-rqs", "3"], "never fits"),
        (["-fr", "field("], "--field-request: is not a field request"),
        (["-ifs", "zz"], "cannot format an integer"),
    ],
)
def test_wrong_options_are_named_and_end_with_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        consumer_command.main(["-ic", "nowhere", *options])
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_the_input_channel_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        consumer_command.main([])
    assert end.value.code == 2
    assert "--input-channel" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("file", "name", "message"),
    [
        ("absent.py", "X", "absent.py does not exist"),
        ("faulty.py", "Nowhere", "has no class 'Nowhere'; its classes are: Init, Start"),
        ("faulty.py", "NoProcess", "has no process(pvObject) method"),
        ("broken.py", "X", "fails to load: SyntaxError"),
        ("faulty.py", "Init", "cannot be made: RuntimeError: no such detector"),
        ("", "no.such.module.X", "fails to import"),
        ("", "Unqualified", "has no module"),
    ],
)
def test_a_processor_that_cannot_be_used_is_explained(
    prefix: str, tmp_path: Path, file: str, name: str, message: str
) -> None:
    write_processor(tmp_path, FAULTY, "faulty.py")
    write_processor(tmp_path, "def x(:\n", "broken.py")
    options = ["-pf", tmp_path / file] if file else []
    before = listening_ports()
    ended = call("consumer", "-ic", f"{prefix}image", "-pc", name, *options)
    assert ended.code == (2 if file == "absent.py" else 1)
    assert message in ended.text
    assert listening_ports() <= before, "what is refused serves on"


@pytest.mark.parametrize(
    ("count", "name", "message"),
    [
        (1, "Start", "does not start: RuntimeError: cannot start"),
        (2, "Start", "does not start: RuntimeError: cannot start"),
        (2, "Init", "cannot be made: RuntimeError: no such detector"),
    ],
)
def test_a_program_whose_processor_cannot_be_used_explains_it(
    prefix: str, commands: Commands, tmp_path: Path, count: int, name: str, message: str
) -> None:
    file = write_processor(tmp_path, FAULTY)
    program = commands("consumer", "-ic", f"{prefix}image", "-nc", count, "-pf", file, "-pc", name)
    assert program.wait() == 1
    assert message in program.text


def test_a_channel_that_never_comes_is_an_error(prefix: str, commands: Commands) -> None:
    program = commands("consumer", "-ic", f"{prefix}absent", "-sc", f"{prefix}status", "-rt", "2")
    wait_until(lambda: status(f"{prefix}status").get("state") == "waiting")
    assert program.wait() == 1
    assert f"channel {prefix}absent was never found" in program.text


def run_faulty(
    name: str, prefix: str, source: Source, commands: Commands, folder: Path, ids: range
):
    """Run a faulty processor on some images; its last status, its program and its ledger."""
    file, ledger = write_processor(folder, FAULTY), folder / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}status", "-pf",
        file, "-pc", name,
        "-sqs", "100", "--ledger", ledger, "--status-period", "0.2",
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    source.publish(ids)
    wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == len(ids) + 1)
    seen = status(f"{prefix}status")
    program.signal()
    program.wait()
    return seen, program, read_ledgers(ledger)[0]


def test_process_that_raises_fails_those_objects_only(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    seen, program, ledger = run_faulty("Process", prefix, source, commands, tmp_path, range(1, 11))
    assert (seen["processorStats"]["nErrors"], seen["processorStats"]["nProcessed"]) == (5, 5)
    assert "odd" in seen["message"]
    assert list(ledger.processed) == list(ledger.published) == [2, 4, 6, 8, 10]
    assert list(ledger.failed["process: ArithmeticError"]) == [1, 3, 5, 7, 9]
    assert program.process.returncode == 1
    assert program.text.count("Traceback") == 1


def test_errors_beside_the_stream_are_told_and_lose_no_object(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    _, program, ledger = run_faulty("Beside", prefix, source, commands, tmp_path, range(1, 6))
    assert list(ledger.processed) == [1, 2, 3, 4, 5]
    assert program.process.returncode == 1
    assert "error, getStats" in program.text
    assert "cannot close" in program.text


def test_an_output_of_another_structure_fails_that_object_only(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    seen, program, ledger = run_faulty("Changing", prefix, source, commands, tmp_path, range(1, 5))
    assert list(ledger.published) == [1, 3, 4]
    assert [list(ids) for ids in ledger.failed.values()] == [[2]]
    assert "getOutputPvObjectType" in seen["message"]
    assert seen["publisherStats"]["nErrors"] == 1
    assert program.process.returncode == 1


def test_empty_images_objects_without_id_and_ids_that_go_back(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(
        tmp_path,
        "from pvapy_stream import FrameProcessor\nclass Turn(FrameProcessor):\n    def"
        " process_frame(self, frame):\n        return frame.replace(image=frame.image[::-1])\n",
    )
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}status", "-pf",
        file, "-pc", "Turn",
        "-sqs", "100", "--ledger", ledger,
    )  # fmt: skip
    wait_for_monitors([f"{prefix}status"])
    empty = pva.NtNdArray()
    empty["uniqueId"] = 1
    source.put(empty)
    source.publish([2, 3, 7, 2, 3])
    wait_until(lambda: status(f"{prefix}status")["receiverStats"]["nReceived"] == 7)
    wait_until(lambda: status(f"{prefix}status")["processorStats"]["nProcessed"] == 5)
    program.signal()
    assert program.wait() == 1
    first, second = read_ledgers(ledger)
    assert list(first.failed["process: ObjectError"]) == [1]
    assert "frame 1 has no image" in program.text
    assert list(first.processed) == [2, 3, 7]
    assert list(first.missed) == [4, 5, 6]
    assert first.went_back == 1
    assert (list(second.processed), second.epoch, second.closed) == ([2, 3], 2, True)
    assert "ids went back to 2" in program.text


def test_a_stream_without_the_id_field_says_which_fields_there_are(
    prefix: str, source: Source, commands: Commands
) -> None:
    program = commands(
        "consumer", "-ic", source.channel, "-of", "frameNumber", "-sc", f"{prefix}status"
    )
    wait_until(lambda: "frameNumber" in status(f"{prefix}status").get("message", ""))
    program.signal()
    assert program.wait() == 1
    assert "no id field 'frameNumber'" in program.text
    assert "uniqueId" in program.text


def test_a_port_in_use_is_no_obstacle(
    prefix: str, source: Source, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("EPICS_PVA_SERVER_PORT", str(port))
        program = commands(
            "consumer", "-ic", source.channel, "-oc", f"{prefix}out", "-sc", f"{prefix}status"
        )
        wait_for_monitors([f"{prefix}status"])
        source.publish([1])
        wait_until(lambda: get(f"{prefix}out", "uniqueId") == 1)
        program.signal()
        assert program.wait() == 0, program.text
    # Behind a firewall nobody finds its channels, and nothing else says why.
    told = f"port {port} of EPICS_PVAS_SERVER_PORT cannot be used: Address already in use; channels"
    assert sum(told in line for line in program.err) == 1, program.text


def test_a_dead_consumer_is_started_again_and_the_account_of_the_dead_is_kept(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(
        tmp_path,
        "import os, pvaccess as pva\nfrom pvapy_stream import UserDataProcessor\nclass"
        " P(UserDataProcessor):\n    def getStats(self):\n        return {'pid': os.getpid()}\n   "
        " def getStatsPvaTypes(self):\n        return {'pid': pva.INT}\n",
    )
    ledger = tmp_path / "ledger.json"
    program = commands(
        "consumer", "-ic", source.channel, "-nc", "2", "-sc", f"{prefix}status:*", "-pf", file,
        "-pc", "P", "-sqs", "100",
        "--ledger", ledger, "--status-period", "0.2",
    )  # fmt: skip
    both = [f"{prefix}status:1", f"{prefix}status:2"]
    wait_for_monitors(both)
    source.publish(range(1, 6))
    wait_until(lambda: all(status(s)["processorStats"]["nProcessed"] == 5 for s in both))
    pid = status(both[0])["userStats"]["pid"]
    wait_until(lambda: sum(len(entry.processed) for entry in read_ledgers(ledger)) == 10)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: status(both[0]).get("userStats", {}).get("pid", pid) != pid)
    assert [status(s)["restarts"] for s in both] == [1, 0]
    wait_for_monitors(both)
    source.publish(range(6, 11))
    wait_until(lambda: status(both[0])["processorStats"]["nProcessed"] == 5)
    wait_until(lambda: status(both[1])["processorStats"]["nProcessed"] == 10)
    program.signal()
    assert program.wait() == 1
    assert "consumer 1 died (signal SIGKILL); restart 1 of at most 3" in program.text
    # At the end restarts are named, and counts are of all incarnations.
    assert "consumer 1 died (signal SIGKILL) and was started again" in program.text
    assert "all: nProcessed 20 " in program.text
    accounts = read_ledgers(ledger)
    assert sorted((entry.stage_id, str(entry.processed)) for entry in accounts) == [
        (1, "1-5"),
        (1, "6-10"),
        (2, "1-10"),
    ]


def test_a_consumer_that_keeps_dying_is_given_up(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(
        tmp_path,
        "import os\nfrom pvapy_stream import UserDataProcessor\nclass P(UserDataProcessor):\n"
        "    def start(self):\n        if self.processorId == 2:\n            os._exit(9)\n",
    )
    program = commands(
        "consumer",
        "-ic",
        source.channel,
        "-nc",
        "2",
        "-sc",
        f"{prefix}status:*",
        "-pf",
        file,
        "-pc",
        "P",
        "--max-restarts",
        "1",
    )
    wait_for_monitors([f"{prefix}status:1"])
    source.publish(range(1, 4))
    wait_until(lambda: status(f"{prefix}status:1")["processorStats"]["nProcessed"] == 3)
    wait_until(lambda: "died (exit code 9) after 1 restarts" in program.text)
    program.signal()
    assert program.wait() == 1
