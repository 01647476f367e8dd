from __future__ import annotations

import pytest

from pvapy_stream.cli.options import add_settings, parse
from pvapy_stream.cli.parser import Parser
from pvapy_stream.settings import ConsumerSettings


def consumer(*argv: str) -> ConsumerSettings:
    parser = Parser("prog", "text", version=True)
    add_settings(parser, ConsumerSettings)
    return parse(ConsumerSettings, parser, ["-ic", "in", *argv])


def test_short_long_and_earlier_forms() -> None:
    assert consumer("-rqs", "5") == consumer("--receiver-queue-size", "5") == consumer("-cqs", "5")
    assert consumer("--client-queue-size", "5").receiver_queue_size == 5
    assert consumer("-rqs", "-1").receiver_queue_size == -1


def test_what_is_not_given_is_not_set() -> None:
    assert consumer("-dc").model_fields_set == {"input_channel", "disable_curses"}


def test_values_are_converted() -> None:
    settings = consumer(
        "-nc", "4", "-rt", "1.5", "-pa", '{"k": 2}', "-mc", "pva://x", "-cid", "range(1,3)"
    )
    assert (settings.n_consumers, settings.runtime, settings.processor_args) == (4, 1.5, {"k": 2})
    assert settings.ids == (1, 2)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["-nc", "0"], "--n-consumers"),
        (["-nc", "many"], "invalid int value: 'many'"),
        (["-pa", "{"], "--processor-args: is not JSON"),
        (["--no-such-option"], "--no-such-option"),
        (["--input", "x"], "unrecognized arguments: --input"),
        (["--ledger", "/nowhere/l.json"], "folder /nowhere does not exist"),
    ],
)
def test_wrong_options_end_with_2_and_their_name(
    argv: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        consumer(*argv)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
