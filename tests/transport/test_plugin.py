"""A transport that another package brings: one file and an entry point, nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from tests.in_process import Called
from tests.installed import call_with
from tests.support import Commands, wait_until

PACKAGE = Path(__file__).parent / "package"
HOME = Path(__file__).parents[2]

FLOW = """
protocols:
  - {label: cam, class: Simulator, n_publish: 30, frame_rate: 100, n_x_pixels: 8, n_y_pixels: 8}
  - {label: near, class: Consumer, input: cam.output, output_mode: push, output_args: {limit: 50}}
  - {label: far, class: Consumer, input: near.output, input_mode: push, input_args: {limit: 50}}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where its sockets are; programs that are started find the package."""
    monkeypatch.setenv("PYTHONPATH", f"{HOME}:{PACKAGE}")
    monkeypatch.setenv("PUSH_FOLDER", str(tmp_path))
    return tmp_path


def test_consumers_and_the_simulator_use_it(folder: Path, prefix: str, commands: Commands) -> None:
    ledger = folder / "ledger.json"
    consumer = commands(
        *("consumer", "-ic", f"{prefix}image", "-im", "push", "-ia", '{"limit": 10}'),
        *("--ledger", ledger, "--disable-curses"),
    )
    simulator = commands(
        *("sim", "-cn", f"{prefix}image", "-om", "push", "--n-publish", 20, "-nx", 8, "-ny", 8),
        *("-std", 0, "-shd", 1, "-fps", 200, "-dc"),
    )
    assert simulator.wait() == 0, simulator.text
    wait_until(
        lambda: ledger.exists() and len(read_ledgers(ledger)[0].processed) == 20,
        what="20 objects",
    )
    consumer.signal()
    assert consumer.wait() == 0, consumer.text


def test_a_workflow_file_names_it(folder: Path, commands: Commands) -> None:
    file = folder / "flow.yaml"
    file.write_text(FLOW)
    run = commands("workflow", "run", file, "--folder", folder / "run")
    assert run.wait() == 0, run.text
    received = [
        len(ledger.processed)
        for path in (folder / "run").rglob("*far*ledger*.json")
        for ledger in read_ledgers(path)
    ]
    assert received == [30]


def test_the_mirror_takes_its_name(folder: Path, prefix: str, commands: Commands) -> None:
    ledger = folder / "ledger.json"
    mirror = commands("mirror", "-cm", f"({prefix}m,{prefix}image,push)", "--ledger", ledger)
    simulator = commands(
        *("sim", "-cn", f"{prefix}image", "-om", "push", "--n-publish", 20, "-nx", 8, "-ny", 8),
        *("-std", 0, "-shd", 1, "-fps", 200, "-dc"),
    )
    assert simulator.wait() == 0, simulator.text
    wait_until(
        lambda: ledger.exists() and len(read_ledgers(ledger)[0].published) == 20,
        what="20 objects",
    )
    mirror.signal()
    assert mirror.wait() == 0, mirror.text


# Commands that start nothing: they are called one after the other, in one program.
COMMANDS = {
    "help": "consumer --help",
    "schema": "workflow schema",
    "buffer": "buffer nats://image",
    "mirror": "mirror -cm (a,b,nats)",
    "mode": "consumer -ic a -im pusch",
    "setting": 'consumer -ic a -im push -ia {"limits":3}',
    "broken": "consumer -ic a -im broken_push",
    "misnamed": "consumer -ic a -im misnamed",
}


@pytest.fixture(scope="module")
def answers() -> dict[str, Called]:
    """What the commands print where the package is installed."""
    return call_with(PACKAGE, {name: words.split() for name, words in COMMANDS.items()})


def test_help_and_schema_name_it(answers: dict[str, Called]) -> None:
    shown = answers["help"]
    assert shown.code == 0
    text = " ".join(shown.text.split())
    assert "pva|ca|pvas|rpc|shm|auto|dectris|ejfat|push" in text
    assert "ejfat: UDP datagrams (experimental); push: a ZeroMQ socket" in text
    assert "arguments of input modes dectris, ejfat, push; other modes need none" in text
    assert text.count("cannot be loaded: ModuleNotFoundError") == 1
    schema = answers["schema"]
    assert schema.code == 0
    kinds = json.loads("".join(schema.out))["properties"]["protocols"]["items"]["oneOf"]
    (consumer,) = [one for one in kinds if one.get("title") == "Consumer"]
    assert "push" in json.dumps(consumer["properties"]["input_mode"])


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("buffer", "pva://CHANNEL, shm://CHANNEL, dectris://CHANNEL or push://CHANNEL"),
        ("mirror", "pva|ca|shm|dectris|push"),
        ("mode", "'auto', 'dectris', 'ejfat' or 'push' (given 'pusch')"),
        ("setting", "--input-args: unknown setting 'limits'; known are limit"),
        ("broken", "'broken_push' of the package push-transport cannot be loaded"),
        ("misnamed", "push_transport:MODE is not a Mode with the name 'misnamed'"),
    ],
)
def test_errors_name_it_or_what_is_wrong_with_it(
    answers: dict[str, Called], name: str, why: str
) -> None:
    assert answers[name].code == 2
    assert why in " ".join(answers[name].text.split())
