"""Files for services, containers and conda: what they start exists, and takes its options."""

from __future__ import annotations

import configparser
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pvapy_stream import __version__
from pvapy_stream.cli.link import SHARED
from tests.docs.programs import PROJECT, check
from tests.in_process import call
from tests.support import Commands, Program

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
UNITS = sorted((EXAMPLES / "systemd").glob("*.service"))
COMPOSE = EXAMPLES / "containers" / "compose.yaml"
RECIPE = ROOT / "packaging" / "conda" / "recipe.yaml"


class Unit(configparser.RawConfigParser):
    """A unit of systemd: keys may be there several times, and keep their case."""

    def __init__(self, path: Path) -> None:
        super().__init__(strict=False)
        self.optionxform = str  # type: ignore[assignment]
        # A backslash goes on with the next line.
        self.read_string(re.sub(r"\\\n\s*", "", path.read_text()))


def variables() -> dict[str, str]:
    lines = (EXAMPLES / "systemd" / "beam.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def filled_in(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)(?::-([^}]*))?\}", lambda m: m[2] or values[m[1]], text)


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.stem)
def test_what_a_unit_starts_takes_its_options(unit: Path) -> None:
    service = Unit(unit)["Service"]
    words = shlex.split(filled_in(service["ExecStart"], variables()))
    assert words[0] == "/opt/pvapy-stream/bin/pvapy-stream"
    check(words)
    assert service["EnvironmentFile"] == "/etc/pvapy-stream/beam.env"


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this machine")
def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    for path in (EXAMPLES / "systemd").iterdir():
        text = path.read_text().replace("/opt/pvapy-stream/bin", str(Path(sys.executable).parent))
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *sorted(tmp_path.glob("*.[st]*[et]"))],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = [line for line in done.stderr.splitlines() if "pvapy-stream" in line]
    assert (done.returncode, ours) == (0, []), done.stderr


def test_services_stop_from_the_source_to_the_end() -> None:
    """They stop in the reverse order of their start."""
    target = Unit(EXAMPLES / "systemd" / "pvapy-stream.target")
    assert target["Install"]["WantedBy"] == "multi-user.target"
    chain = ["save", "gather", "hits", "mirror"]
    units = {path.stem.removeprefix("pvapy-stream-"): Unit(path) for path in UNITS}
    assert set(units) == {*chain, "dashboard"}
    for earlier, later in itertools.pairwise(chain):
        assert f"pvapy-stream-{earlier}.service" in units[later]["Unit"]["After"].split()
    wanted = re.findall(
        r"pvapy-stream-(\w+)", (EXAMPLES / "systemd/pvapy-stream.target").read_text()
    )
    assert sorted(wanted) == sorted(units)
    for unit in units.values():
        assert unit["Unit"]["PartOf"] == "pvapy-stream.target"
        # Longer than the time in which they drain.
        assert int(unit["Service"]["TimeoutStopSec"]) > 10


def containers() -> dict[str, Any]:
    return yaml.safe_load(COMPOSE.read_text())["services"]


def test_what_containers_start_takes_its_options() -> None:
    file = (EXAMPLES / "containers" / "Containerfile").read_text()
    assert 'ENTRYPOINT ["pvapy-stream"]' in file
    (extras,) = re.findall(r"/source\[([\w,]+)\]", file)
    assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"])
    for name, service in containers().items():
        if name != "memory":
            values = {"SOURCE": "det:image"}
            check(["pvapy-stream", *shlex.split(filled_in(service["command"], values))])
            assert service["ipc"] == "service:memory"
            assert int(service["stop_grace_period"].removesuffix("s")) > 10


def test_units_and_containers_are_the_same_chain() -> None:
    units = {
        path.stem.removeprefix("pvapy-stream-"): shlex.split(
            filled_in(Unit(path)["Service"]["ExecStart"], variables())
        )
        for path in UNITS
    }
    found = {
        name: shlex.split(filled_in(one["command"], variables()))
        for name, one in containers().items()
        if "command" in one
    }
    assert set(found) == set(units) - {"dashboard"}
    for name, words in found.items():
        for flag in ("--input-channel", "--output-channel", "--channel-map", "--status-channel"):
            if flag in words:
                assert option(words, flag) == option(units[name], flag)


def test_the_conda_recipe_needs_what_the_package_needs() -> None:
    recipe = yaml.safe_load(RECIPE.read_text())
    assert recipe["context"]["version"] == __version__
    assert recipe["about"]["summary"] == PROJECT["description"]
    needed = {re.sub(r"\s*;.*", "", one).replace(">=", " >=", 1) for one in PROJECT["dependencies"]}
    without = {one for one in needed if one.startswith("iceoryx2")}
    assert set(recipe["requirements"]["run"]) == {"python >=3.10", *(needed - without)}
    # The names that pvapy has too are left to its package.
    removed = re.findall(r"bin/([\w-]+)", " ".join(recipe["build"]["script"]))
    scripts = {f"{name} = {target}" for name, target in PROJECT["scripts"].items()}
    entry_points = set(recipe["build"]["python"]["entry_points"])
    assert entry_points <= scripts
    assert {one.split()[0] for one in scripts - entry_points} == set(removed) == set(SHARED)


def test_the_services_save_every_hit(tmp_path: Path, prefix: str, commands: Commands) -> None:
    """The programs of the units, with names and folders of this test."""
    source = f"{prefix}det"
    ledgers = [str(tmp_path / "sim.json")]
    programs: dict[str, Program] = {}
    for name in ("save", "gather", "hits", "mirror"):
        text = Unit(EXAMPLES / "systemd" / f"pvapy-stream-{name}.service")["Service"]["ExecStart"]
        text = filled_in(text, {**variables(), "SOURCE": source}).replace("beam:", prefix)
        text = text.replace("/data/", f"{tmp_path}/").replace("/etc/pvapy-stream", str(EXAMPLES))
        words = shlex.split(text)[1:]
        at = words.index("--ledger") + 1
        words[at] = str(tmp_path / words[at])
        ledgers.append(words[at])
        programs[name] = commands(*words, PVAPY_STREAM_RUN="beam")
    stages = ",".join(f"{prefix}{s}:status" for s in ("hits:1", "hits:2", "gather", "save"))
    sim = commands(
        "sim", "-cn", source, "-nx", "32", "-ny", "32", "-nf", "10", "-fps", "100", "--n-publish",
        "150", "--wait-for-stages", stages, "-rp", "0", "-dc", "-shd", "0", "--ledger", ledgers[0],
    )  # fmt: skip
    assert sim.wait() == 0, sim.text
    for name in ("mirror", "hits", "gather", "save"):
        programs[name].signal()
        assert programs[name].wait() == 0, (name, programs[name].text)
    (file,) = tmp_path.glob("beam_*.h5")
    assert file.name == "beam_000001.h5"
    verified = call("verify", file)
    assert verified.code == 0, verified.text
    audited = call("audit", *ledgers)
    assert audited.code == 0, audited.text
    assert "published 150, processed 150, missed 0" in audited.text
