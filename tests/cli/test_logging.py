"""What processors log, also those written for the incumbent, comes once to terminal and file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from pvapy_stream.errors import SettingsError
from pvapy_stream.settings import LoggingSettings
from tests.support import (
    Commands,
    Program,
    Source,
    status,
    wait_for_monitors,
    wait_until,
    write_processor,
)

TALKER = """
import logging
from pvapy.hpc.userDataProcessor import UserDataProcessor
from pvapy.utility.loggingManager import LoggingManager

class Talker(UserDataProcessor):
    def __init__(self, configDict={}):
        super().__init__(configDict)
        managed = LoggingManager.getLogger('managed')
        self.loggers = [self.logger, managed, logging.getLogger('plain')]
    def process(self, pvObject):
        for logger in self.loggers:
            for level in ('debug', 'info', 'warning', 'error', 'critical'):
                getattr(logger, level)(f'says {level} {pvObject["uniqueId"]} in {self.processorId}')
        return super().process(pvObject)
"""
OWN_HANDLERS = """
import logging, sys
from pvapy.hpc.userDataProcessor import UserDataProcessor
from pvapy.utility.loggingManager import LoggingManager

class Talker(UserDataProcessor):
    def __init__(self, configDict={}):
        super().__init__(configDict)
        self.managed = LoggingManager.getLogger('managed', logFile=configDict['log'])
        self.plain = logging.getLogger('plain')
        self.plain.addHandler(logging.StreamHandler(sys.stdout))
    def process(self, pvObject):
        self.managed.error('says managed')
        self.plain.error('says plain')
"""
POOL = """
import logging
from pvapy.utility.loggingManager import LoggingManager
from pvapy_stream.hpc.workers import UserMpDataProcessor, UserMpWorkerPool

class Worker(UserMpDataProcessor):
    def process(self, frame):
        managed = LoggingManager.getLogger('managed')
        for logger in (self.logger, managed, logging.getLogger('plain')):
            logger.info(f'says info {frame.id} in a worker')
        return frame

class Pool(UserMpWorkerPool):
    workerClass = Worker
"""
LEVELS = ("debug", "info", "warning", "error", "critical")


def consumer(commands: Commands, source: Source, prefix: str, file: Path, *more: object) -> Program:
    """A consumer that has had three objects, when it has ended."""
    several = "-nc" in more
    program = commands(
        "consumer", "-ic", source.channel, "-sc", f"{prefix}status:*", "-pf", file, "-sqs", "100",
        *more,
    )  # fmt: skip
    channels = [f"{prefix}status:{number}" for number in ((1, 2) if several else (1,))]
    wait_for_monitors(channels)
    source.publish(range(1, 4))
    for channel in channels:
        wait_until(lambda channel=channel: status(channel)["processorStats"]["lastObjectId"] == 3)
    program.signal()
    program.wait()
    return program


def count(lines: list[str], text: str) -> int:
    return sum(text in line for line in lines)


@pytest.mark.parametrize(("level", "lowest"), [("debug", 0), ("Warn", 2), ("critical", 4)])
def test_every_level_of_every_logger_once_to_terminal_and_file(
    prefix: str, source: Source, commands: Commands, tmp_path: Path, level: str, lowest: int
) -> None:
    file = write_processor(tmp_path, TALKER)
    log = tmp_path / "log.txt"
    program = consumer(commands, source, prefix, file, "-pc", "Talker", "-ll", level, "-lf", log)
    for lines in (program.out + program.err, log.read_text().splitlines()):
        for number, name in enumerate(LEVELS):
            for logger in ("Talker", "managed", "plain"):
                form = re.compile(
                    rf"^\d{{4}}-\S+ \S+ {name.upper():<7} {logger}: says {name} 2 in 1\n?$"
                )
                found = sum(form.match(line) is not None for line in lines)
                assert found == (number >= lowest), (name, logger, lines)
            assert count(lines, f"says {name} 2 ") == 3 * (number >= lowest), lines
        shown = count(lines, "processing object 2")
        # The incumbent's base class, and the stage.
        assert shown == (2 if level == "debug" else 0), lines


def test_two_processes_and_the_incumbents_form(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, TALKER)
    log = tmp_path / "log.txt"
    program = consumer(
        commands, source, prefix, file, "-pc", "Talker", "-nc", "2", "-ll", "info", "-lf", log,
        "--log-format", "pvapy",
    )  # fmt: skip
    for lines in (program.out + program.err, log.read_text().splitlines()):
        for number in (1, 2):
            for logger in ("Talker", "managed", "plain"):
                form = re.compile(rf"^\d{{4}}-\S+ \S+ {logger} INFO: says info 3 in {number}\n?$")
                assert sum(form.match(line) is not None for line in lines) == 1, lines
        assert count(lines, "says info 3 in") == 6


def test_a_collector_logs_like_a_consumer_and_its_counts_fit_together(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    producers = [Source(f"{prefix}out:{number}") for number in (1, 2)]
    log = tmp_path / "log.txt"
    channel = f"{prefix}status"
    program = commands(
        "collector", "-ic", f"{prefix}out:*", "-sc", channel, "-sqs", "100", "-ll", "info", "-lf",
        log, "-pf", write_processor(tmp_path, TALKER), "-pc", "Talker", "--log-format", "pvapy",
    )  # fmt: skip

    def received(stats: dict[str, Any]) -> list[int]:
        names = [f"producerStats_{number}" for number in (1, 2)]
        return [stats[name]["receiverStats"]["nReceived"] for name in names]

    try:
        wait_until(lambda: all(received(status(channel))))
        for number in range(1, 41):
            producers[number % 2].publish([number])
            stats = status(channel)
            collected = stats["collectorStats"]["nCollected"]
            assert stats["processorStats"]["nProcessed"] <= collected <= sum(received(stats))
        wait_until(lambda: status(channel)["collectorStats"]["nCollected"] == 40)
    finally:
        for one in producers:
            one.close()
    program.signal()
    program.wait()
    for lines in (program.err, log.read_text().splitlines()):
        for logger in ("Talker", "managed", "plain"):
            assert count(lines, f"{logger} WARNING: says warning 7 in 1") == 1, lines


def test_handlers_that_a_processor_installs_do_not_double_lines(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, OWN_HANDLERS)
    log = tmp_path / "log.txt"
    program = consumer(
        commands, source, prefix, file, "-pc", "Talker", "-lf", log,
        "-pa", f'{{"log": "{log}"}}',
    )  # fmt: skip
    lines = program.out + program.err
    assert (count(lines, "says managed"), count(lines, "says plain")) == (3, 3), lines
    lines = log.read_text().splitlines()
    assert (count(lines, "says managed"), count(lines, "says plain")) == (3, 3), lines


def test_workers_of_a_pool_log_like_the_stage(
    prefix: str, source: Source, commands: Commands, tmp_path: Path
) -> None:
    file = write_processor(tmp_path, POOL)
    log = tmp_path / "log.txt"
    program = consumer(
        commands, source, prefix, file, "-pc", "Pool", "-pa", '{"nWorkers": 2}', "-ll", "info",
        "-lf", log, "--log-format", "%(name)s|%(message)s",
    )  # fmt: skip
    for lines in (program.err, log.read_text().splitlines(keepends=True)):
        for logger in ("Worker", "managed", "plain"):
            for number in (1, 2, 3):
                assert lines.count(f"{logger}|says info {number} in a worker\n") == 1, lines


def test_why_a_run_is_no_success_is_said_once(
    prefix: str, commands: Commands, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    program = commands("consumer", "-ic", f"{prefix}nobody", "-rt", "1", "-lf", log)
    assert program.wait() == 1
    assert count(program.err, "was never found") == 1, program.text
    assert count(log.read_text().splitlines(), "was never found") == 1


@pytest.mark.parametrize("form", ["%(nothing)s", "no field", "%(message", "%(message)d"])
def test_a_format_that_cannot_be_used_is_refused(form: str) -> None:
    with pytest.raises(SettingsError, match="--log-format"):
        LoggingSettings.of(log_format=form)


@pytest.mark.parametrize(("name", "level"), [("warn", 30), ("FATAL", 50), ("Info", 20)])
def test_names_of_levels(name: Any, level: int) -> None:
    assert LoggingSettings.of(log_level=name).level == level
