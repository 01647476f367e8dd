"""Programs of a workflow that die, hang or are in the way, and what is told of it at the end."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import psutil
import pytest

from pvapy_stream.launch import agent
from pvapy_stream.launch.programs import LocalProgram, ProgramSpec
from tests.in_process import call
from tests.support import Commands, Source, wait_until
from tests.workflow.test_streams import live, pid, run

CAM = """
channels: "{prefix}"
protocols:
  - {{label: cam, class: Simulator, n_publish: {n}, frame_rate: 200, n_x_pixels: 8, n_y_pixels: 8,
     n_frames: 4}}
"""
STAGES = {
    "copy": "class: Mirror",
    "work": "class: Consumer",
    "gather": "class: Collector",
    "disk": "class: Writer, output: scan.h5",
}
# The first programs of a run die as if a library had failed while they start.
DIES = """
import os, sys
if "pvapy_stream.cli.stage_program" in " ".join(sys.orig_argv):
    for number in range(5):
        try:
            os.mkdir(os.path.join({folder!r}, str(number)))
        except FileExistsError:
            continue
        os.kill(os.getpid(), 11)
"""


def chain(tmp_path: Path, prefix: str, n: int, stages: str, **more: str) -> Path:
    """A simulator and stages, each with more settings if there are any, that a test needs."""
    text, before = CAM.format(prefix=prefix, n=n), "cam"
    for label in stages.split():
        own = STAGES[label] + more.get(label, "")
        text += f"  - {{label: {label}, input: {before}.output, {own}}}\n"
        before = label
    path = tmp_path / "chain.yaml"
    path.write_text(text)
    return path


def programs_of(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


def wait_for_end_of(processes: list[psutil.Process], timeout: float) -> None:
    wait_until(
        lambda: (
            not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in processes)
        ),
        timeout,
        f"the end of {processes}",
    )


def total(html: str, name: str) -> int:
    """A number of a report, which has narrow spaces between its groups of digits."""
    (shown,) = re.findall(f'data-total="{name}">([\\d\u202f]+)<', html)
    return int(shown.replace("\u202f", ""))


def test_stages_that_die_at_their_start_are_brought_back_and_named(
    commands: Commands, tmp_path: Path, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deaths").mkdir()
    (tmp_path / "sitecustomize.py").write_text(DIES.format(folder=str(tmp_path / "deaths")))
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    folder = tmp_path / "run"
    program = run(commands, chain(tmp_path, prefix, 100, "copy work gather disk"), folder)
    assert program.wait(80) == 1, program.text
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["processed"] == audit["published"] == 100
    names = ["cam", "copy", "work-1", "gather", "disk"]
    told = {line.partition(":")[0]: line for line in audit["restarts"]}
    # One may have died twice before another had died once.
    assert set(told) <= set(names)
    assert sum(int(re.search(r"restarted (\d)", line)[1]) for line in told.values()) == 5
    for line in told.values():
        assert line in program.text
        assert "SIGSEGV" in line


def test_restarts_and_audit_are_in_the_report_and_each_loss_is_told_once(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    folder = tmp_path / "run"
    # Without an end of its own, for a stream that is over shows no kill.
    file = chain(tmp_path, prefix, 0, "work gather disk", work=", n_consumers: 2")
    report = (
        "report -sc {prefix}work:status:1 {prefix}work:status:2 {prefix}gather:status:1"
        " {prefix}disk:status:1 --interval 1 -o '{folder}/report.html'"
        " --audit '{folder}/audit.json'"
    )
    file.write_text(
        file.read_text() + f'  - {{label: page, class: Command, command: "{report}"}}\n'
    )
    program = run(commands, file, folder)
    wait_until(lambda: live(folder)["disk"]["processed"] > 100, 40)
    wait_until(lambda: (folder / "report.html").exists(), 40)
    os.kill(pid(folder, "work"), signal.SIGKILL)
    wait_until(lambda: live(folder)["work"]["programs"][0]["restarts"] == 1, 60)
    before = live(folder)["disk"]["processed"]
    wait_until(lambda: live(folder)["disk"]["processed"] > before + 100, 60)
    program.signal(signal.SIGINT)
    assert program.wait(80) == 1, program.text
    (audit,) = json.loads((folder / "audit.json").read_text())
    html = (folder / "report.html").read_text()
    lost = audit["published"] - audit["processed"]
    assert total(html, "restarts") == 1
    assert "started again 1 times" in html
    assert f'data-audit="processed">{audit["processed"]}<' in html
    assert "work-1: restarted 1 time (" in html
    assert total(html, "missed") <= lost
    # All that the writer has processed, with no incarnation left out.
    assert abs(total(html, "processed") - audit["processed"]) <= 1


def test_a_second_signal_ends_a_workflow_without_draining(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "hangs.py").write_text(
        "import time\nfrom pvapy_stream import UserDataProcessor\nclass P(UserDataProcessor):\n"
        "    def process(self, pvObject):\n        time.sleep(600)\n"
    )
    folder = tmp_path / "run"
    more = ", processor_file: hangs.py, processor_class: P, drain_timeout: 300"
    program = run(commands, chain(tmp_path, prefix, 0, "work disk", work=more), folder)
    wait_until(lambda: live(folder)["work"]["received"] > 0, 40)
    there = programs_of(program.process.pid)
    program.signal(signal.SIGINT)
    wait_until(lambda: "asked to stop" in program.text)
    program.signal(signal.SIGINT)
    assert program.wait(40) == 1, program.text
    wait_for_end_of(there, 5)
    assert "end without draining" in program.text
    (audit,) = json.loads((folder / "audit.json").read_text())
    assert audit["published"] > 0


def test_programs_end_when_the_workflow_is_gone_also_in_c_code_that_lets_no_thread_run(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "holds.py").write_text(
        "import ctypes\nfrom pvapy_stream import UserDataProcessor\n"
        "class P(UserDataProcessor):\n"
        "    def process(self, pvObject):\n"
        "        open(__file__ + '.took', 'w').close()\n"
        "        ctypes.PyDLL(None).sleep(600)\n"
    )
    folder = tmp_path / "run"
    more = ", processor_file: holds.py, processor_class: P"
    program = run(commands, chain(tmp_path, prefix, 0, "work", work=more), folder)
    wait_until(lambda: (tmp_path / "holds.py.took").exists(), 60)
    there = programs_of(program.process.pid)
    program.signal(signal.SIGKILL)
    program.wait(10)
    wait_for_end_of(there, 90)


def test_a_source_that_never_comes_is_named_after_the_time_to_be_ready(
    tmp_path: Path, prefix: str
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(
        f'channels: "{prefix}"\nprotocols:\n'
        f"  - {{label: copy, class: Mirror, source: '{prefix}none', ready_timeout: 4}}\n"
        "  - {label: work, class: Consumer, input: copy.output, ready_timeout: 4}\n"
    )
    ended = call("workflow", "run", file, "--folder", tmp_path / "run")
    assert ended.code == 1, ended.text
    assert f"stage copy was not ready within 4 s: no object from {prefix}none; " in ended.text


def test_a_source_of_others_that_is_there_makes_the_stage_ready(
    commands: Commands, tmp_path: Path, prefix: str, source: Source
) -> None:
    file = tmp_path / "mirror.yaml"
    file.write_text(
        f'channels: "{prefix}"\nprotocols:\n'
        f"  - {{label: copy, class: Mirror, source: '{source.channel}'}}\n"
        "  - {label: work, class: Consumer, input: copy.output}\n"
    )
    folder = tmp_path / "run"
    program = run(commands, file, folder)
    wait_until(lambda: "are ready" in program.text)
    source.publish(range(1, 11))
    wait_until(lambda: live(folder)["work"]["processed"] == 10)
    program.signal()
    assert program.wait(40) == 0, program.text


def test_the_log_of_a_program_is_its_own(tmp_path: Path) -> None:
    spec = ProgramSpec("one", "no-such-command", argv=(), has_ledger=False)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "one.log").write_text("of another run\n")
    program = LocalProgram(spec, tmp_path, 1)
    wait_until(lambda: program.poll() is not None, 30)
    assert "no-such-command" in program.log_tail()
    assert "of another run" not in program.log_tail()


def test_on_a_worker_programs_of_two_runs_have_logs_of_their_own(tmp_path: Path) -> None:
    keys = [f"{tmp_path.name}-{number}-one" for number in (1, 2)]
    for key, command in zip(keys, ("no-such-command", "another"), strict=True):
        agent.start(key, ProgramSpec("one", command, argv=(), has_ledger=False), 1)
    wait_until(lambda: all(one["code"] is not None for one in agent.look(keys).values()), 30)
    logs = [agent.look(keys)[key]["log"] for key in keys]
    assert ["no-such-command" in log for log in logs] == [True, False]
    assert ["another" in log for log in logs] == [False, True]


def test_resume_goes_on_with_the_writer_s_next_file(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    pytest.importorskip("pvapy_stream.files.run_name", reason="writers do not know their run yet")
    folder = tmp_path / "run"
    program = run(commands, chain(tmp_path, prefix, 0, "disk"), folder)
    wait_until(lambda: live(folder)["disk"]["processed"] > 50, 40)
    there = programs_of(program.process.pid)
    program.signal(signal.SIGKILL)
    wait_for_end_of(there, 60)
    first = (folder / "scan.h5").read_bytes()
    again = commands("project", "resume", folder)
    wait_until(lambda: "are ready" in again.text, 40)
    wait_until(lambda: live(folder)["disk"]["processed"] > 50, 40)
    again.signal()
    assert again.wait(60) == 0, again.text
    assert (folder / "scan.h5").read_bytes() == first
    assert (folder / "scan.2.h5").exists()


def test_a_writer_that_is_killed_goes_on_with_its_next_file(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    pytest.importorskip("pvapy_stream.files.run_name", reason="writers do not know their run yet")
    folder = tmp_path / "run"
    program = run(commands, chain(tmp_path, prefix, 2000, "disk"), folder)
    wait_until(lambda: live(folder)["disk"]["processed"] > 50, 40)
    os.kill(pid(folder, "disk"), signal.SIGKILL)
    assert program.wait(120) == 1, program.text
    assert "disk: restarted 1 time (" in program.text
    assert (folder / "scan.h5.part").exists()
    assert (folder / "scan.2.h5").exists()


def test_a_signal_during_a_start_that_hangs_ends_a_workflow(
    commands: Commands, tmp_path: Path, prefix: str
) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pvapy_stream import UserDataProcessor\nclass P(UserDataProcessor):\n"
        "    def start(self):\n        time.sleep(600)\n"
    )
    folder = tmp_path / "run"
    more = ", processor_file: slow.py, processor_class: P"
    program = run(commands, chain(tmp_path, prefix, 0, "work gather", work=more), folder)
    wait_until(lambda: live(folder)["gather"]["programs"][0]["pid"], 40)
    there = programs_of(program.process.pid)
    program.signal(signal.SIGTERM)
    assert program.wait(80) == 1, program.text
    wait_for_end_of(there, 5)
