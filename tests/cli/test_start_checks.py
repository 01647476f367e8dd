"""What is wrong with options is told before anything starts, or as soon as it can be known."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pvapy_stream.cli import bsread_writer, buffer, collector, consumer, mirror, sim
from tests.in_process import call
from tests.support import Commands, Source, get, status, wait_until

PROGRAMS = [
    (consumer, ["-ic", "in"]),
    (collector, ["-ic", "in:*"]),
    (mirror, ["-cm", "m,s"]),
    (sim, ["-std", "0"]),
    (buffer, ["tcp://127.0.0.1:9"]),
    (bsread_writer, ["tcp://127.0.0.1:9", "/dev/null", "-1", "0"]),
]


@pytest.mark.parametrize(("module", "argv"), PROGRAMS)
@pytest.mark.parametrize("option", ["--ledger", "--log-file"])
def test_a_file_that_cannot_be_written(
    module: object, argv: list[str], option: str, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for path, why in (
        (tmp_path / "no" / "f", "does not exist; make it"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(SystemExit) as ended:
            module.main([*argv, option, str(path)])  # type: ignore[attr-defined]
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert f"{option}: " in told
        assert why in told


@pytest.mark.parametrize("there", [True, False])
def test_a_processor_file_that_is_none(
    there: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path if there else tmp_path / "none.py"
    with pytest.raises(SystemExit):
        consumer.main(["-ic", "in", "-pf", str(path), "-pc", "P"])
    told = capsys.readouterr().err
    assert f"--processor-file: {path} {'is a folder' if there else 'does not exist'}" in told


@pytest.mark.parametrize(
    "argv",
    [["-oc", "out"], ["-sc", "stat"], ["-cc", "ctrl"], ["-im", "pvas"], ["-om", "shm", "-oc", "o"]],
)  # fmt: skip
def test_consumers_need_names_of_their_own(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        consumer.main(["-ic", "in", "-nc", "2", *argv])
    assert "needs its own channel" in capsys.readouterr().err


def test_a_collector_is_none_of_its_producers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        collector.main(["-ic", "in:*", "-oc", "in:2"])
    assert "--input-channel and --output-channel are both in:2" in capsys.readouterr().err


def test_a_bridge_may_keep_the_name(capsys: pytest.CaptureFixture[str]) -> None:
    from pvapy_stream.settings import ConsumerSettings

    settings = ConsumerSettings.of(input_channel="a", output_channel="a", input_mode="ca")
    assert settings.output_channel == settings.input_channel


def test_a_field_that_the_source_does_not_have(
    prefix: str, source: Source, commands: Commands
) -> None:
    program = commands(
        "consumer", "-ic", source.channel, "-fr", "noField,value", "-sc", f"{prefix}s",
        "-oc", f"{prefix}o",
    )  # fmt: skip
    wait_until(lambda: status(f"{prefix}s")["processorStats"]["nErrors"], what="the error")
    source.publish(range(1, 4))
    # The other fields are there, as with PvaPy.
    wait_until(lambda: get(f"{prefix}o", "uniqueId") == 3, what="the last object")
    program.signal()
    assert program.wait() == 1
    assert f"channel {source.channel} has no field noField; correct --field-request" in program.text


def test_nobody_puts_and_an_output_mode_without_an_output(prefix: str, commands: Commands) -> None:
    program = commands("consumer", "-ic", f"{prefix}in", "-im", "pvas", "-rt", "1", "-om", "pva")
    assert program.wait() == 0
    assert f"nobody sent anything to channel {prefix}in, which is hosted here" in program.text
    assert "its --output-mode pva and its EPICS_PVA_ADDR_LIST" in program.text
    assert "--output-mode pva has no effect without --output-channel" in program.text


@pytest.mark.parametrize(
    ("words", "channels"),
    [
        (["consumer", "-ic", "{}1"], ["{}1 has"]),
        (["collector", "-pid", "1,2", "-ic", "{}*"], ["{}1, {}2 have"]),
        (["mirror", "-cm", "({}mirror,{}1)"], ["{}1 has"]),
    ],
)
def test_a_channel_that_does_not_come_is_told_while_it_is_waited_for(
    words: list[str], channels: list[str], prefix: str, commands: Commands
) -> None:
    argv = [word.replace("{}", prefix) for word in words]
    program = commands(*argv, "-sc", f"{prefix}s", "-rt", "60")
    wait_until(lambda: "not been found since" in program.text, what="that it has not come")
    told = program.text
    assert f"channel{'s' * ('have' in channels[0])} {channels[0].replace('{}', prefix)} not" in told
    # Since when, and what is likely.
    assert re.search(r"since \d\d:\d\d:\d\d \(5 s\); check its name, that its program runs,", told)
    assert "that EPICS_PVA_ADDR_LIST (127.0.0.1) includes its host" in told
    assert f"pvapy-stream doctor --channel {prefix}1" in told
    state = wait_until(lambda: status(f"{prefix}s")["message"], what="the status")
    assert "not been found since" in state
    program.signal()
    assert program.wait() == 1
    assert f"{prefix}1" in program.text.rpartition("was never found")[0].rpartition("error:")[2]


def test_a_wrong_folder_of_database_definitions(
    prefix: str, commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EPICS_DB_INCLUDE_PATH", "/nowhere")
    program = commands("sim", "-cn", f"{prefix}i", "-mpv", f"{prefix}m", "-std", "0", "-shd", "0")
    assert program.wait() == 1
    assert "base.dbd is not in /nowhere; correct EPICS_DB_INCLUDE_PATH" in program.text


def test_values_that_the_pixels_cannot_have(prefix: str) -> None:
    done = call("sim", "-cn", f"{prefix}i", "-mn", 300, "--n-publish", 1, "-std", 0, "-shd", 0)
    assert done.code == 0
    assert "--minimum 300 is no uint8 value: 255 is used" in done.text


def test_a_ledger_in_a_folder_that_is_not_there_ends_in_order(
    source: Source, commands: Commands
) -> None:
    program = commands("consumer", "-ic", source.channel, "--ledger", "/nowhere/l.json")
    assert program.wait() == 2, program.text
    assert "FATAL" not in program.text


def test_a_ledger_whose_folder_goes_ends_in_order(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}s", "--ledger", folder / "l.json"
    )
    wait_until(lambda: (folder / "l.json").exists())
    (folder / "l.json").unlink()
    for left in folder.iterdir():
        left.unlink(missing_ok=True)
    folder.rename(tmp_path / "elsewhere")
    source.publish(range(1, 4))
    program.signal()
    assert program.wait() == 1, program.text
    assert "FATAL" not in program.text
    assert "cannot write ledger" in program.text
