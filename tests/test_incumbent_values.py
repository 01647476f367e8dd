"""Values and forms that PvaPy's programs accept are accepted here."""

from __future__ import annotations

from typing import Any

import pytest

from pvapy_stream.cli import collector, consumer, mirror, sim
from pvapy_stream.cli.options import parse
from pvapy_stream.settings import (
    CollectorSettings,
    ConsumerSettings,
    MirrorSettings,
    Settings,
    SimulatorSettings,
    incumbent,
)
from pvapy_stream.settings.channel_map import parse_channel_map

PROGRAMS = {
    "consumer": (ConsumerSettings, consumer.COMMAND.parser, ["-ic", "in:*"]),
    "collector": (CollectorSettings, collector.COMMAND.parser, ["-ic", "in:*"]),
    "mirror": (MirrorSettings, mirror.COMMAND.parser, []),
    "sim": (SimulatorSettings, sim.COMMAND.parser, []),
}


def settings(program: str, *argv: str) -> Any:
    model, parser, required = PROGRAMS[program]
    return parse(model, parser(), [*required, *argv])


# Program, option, value, setting, what is used, and part of the warning; "" for none.
TABLE = [
    ("consumer", "-rqs", "-5", "receiver_queue_size", -1, ""),
    ("consumer", "-sqs", "-1", "server_queue_size", 0, "--server-queue-size -1 is below 0: 0 is"),
    ("collector", "-ccs", "-5", "collector_cache_size", -1, ""),
    ("collector", "-id", "-1", "collector_id", -1, ""),
    ("sim", "-nf", "-1", "n_frames", 0, ""),
    ("sim", "-cs", "0", "cache_size", 1, "--cache-size 0 is below 1: 1 is used"),
    ("sim", "-fps", "-1", "frame_rate", 0, "as fast as possible"),
    ("sim", "-std", "-1", "start_delay", 0, "--start-delay -1"),
    ("sim", "-shd", "-2.5", "shutdown_delay", 0, "--shutdown-delay -2.5"),
    ("sim", "-dt", "u2", "datatype", "uint16", ""),
    ("sim", "-dt", "float", "datatype", "float64", ""),
    ("consumer", "-ll", "warn", "log_level", "warning", ""),
    ("consumer", "-ll", "FATAL", "log_level", "critical", ""),
    ("consumer", "-siu", "-1", "skip_initial_updates", 0, "--skip-initial-updates -1"),
    ("consumer", "-id", "-1", "consumer_id", -1, ""),
    ("consumer", "-nds", "0", "n_distributor_sets", 1, "--n-distributor-sets 0"),
    ("consumer", "-du", "0", "distributor_updates", 1, "--distributor-updates 0"),
    ("consumer", "-at", "-1", "accumulation_timeout", 0, "--accumulation-timeout -1"),
    ("consumer", "-ao", "10", "accumulate_objects", 10, "no effect without a receiver queue"),
    ("consumer", "-pa", "", "processor_args", {}, ""),
    ("consumer", "-pf", __file__, "processor_class", None, "no effect without --processor-class"),
    ("consumer", "-ia", "", "input_args", {}, ""),
    ("consumer", "-im", "1", "input_mode", "pvas", ""),
    ("consumer", "-om", "2", "output_mode", "rpc", "no effect without --output-channel"),
    ("consumer", "-cid", "range(1,3+1)", "ids", (1, 2, 3), ""),
    ("consumer", "-rs", "queue,nonsense", "report_stats", ("queue",), "nonsense is not one of"),
    ("consumer", "-rs", "processors", "report_stats", ("processor",), "using processor"),
    ("consumer", "-rs", "", "report_stats", (), ""),
    ("consumer", "-mc", "http://x", "metadata_channels", None, "name of a CA channel"),
    ("consumer", "-rt", "-1", "runtime", -1, ""),
    ("collector", "-rs", "all", "oid_offset", 1, ""),
]  # fmt: skip


@pytest.mark.parametrize(("program", "option", "value", "name", "used", "warning"), TABLE)
def test_values(
    program: str, option: str, value: str, name: str, used: Any, warning: str,
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(incumbent, "_warned", set())
    found = settings(program, option, value)
    assert used is None or getattr(found, name) == used
    assert (warning in caplog.text) if warning else not caplog.text
    # What was used in its place is no reason to warn again.
    settings(program, option, value).replace(runtime=1)
    assert len(caplog.records) == bool(warning)


@pytest.mark.parametrize(
    ("program", "argv", "name", "value"),
    [
        ("consumer", ["--input-ch", "x"], "input_channel", "x"),
        ("consumer", ["--input-ch=x"], "input_channel", "x"),
        # Unique with PvaPy, although there are more options here.
        ("consumer", ["--m", "x"], "metadata_channels", None),
        ("consumer", ["--status", "s"], "status_channel", "s"),
        ("consumer", ["--rec", "5"], "receiver_queue_size", 5),
        ("consumer", ["-rq", "5"], "receiver_queue_size", 5),
        ("consumer", ["--drain", "5"], "drain_timeout", 5),
        ("collector", ["--prod", "4,5"], "producer_id_list", (4, 5)),
        ("collector", ["--o", "x"], None, None),
        ("mirror", ["--chan", "a,b"], "channel_map", "a,b"),
        ("sim", ["--s", "1"], None, None),
        ("sim", ["--start", "1"], "start_delay", 1),
        ("sim", ["--dat", "int8"], "datatype", "int8"),
        ("sim", ["--dis"], "disable_curses", True),
    ],
)
def test_abbreviated_options(program: str, argv: list[str], name: str | None, value: Any) -> None:
    if name is None:
        with pytest.raises(SystemExit):
            settings(program, *argv)
        return
    found: Settings = settings(program, *argv)
    assert name in found.model_fields_set
    assert value is None or getattr(found, name) == value


@pytest.mark.parametrize("text", ["m,s", "(m,s", "m,s)", "(m,s))", "(m,s),"])
def test_a_channel_map_without_all_its_parentheses(text: str) -> None:
    (entry,) = parse_channel_map(text)
    assert (entry.mirror, entry.source) == ("m", "s")


@pytest.mark.parametrize("text", ["(a,b)(c,d)", "a,b),(c,d", "(a,b) (c,d,pva,+2)"])
def test_two_entries_with_parts_left_out(text: str) -> None:
    assert [(e.mirror, e.source) for e in parse_channel_map(text)] == [("a", "b"), ("c", "d")]
