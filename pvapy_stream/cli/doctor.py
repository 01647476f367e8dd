"""``doctor`` (check): check the installation, the network settings and a channel."""

from __future__ import annotations

import argparse
import operator
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from rich.console import Console
from rich.text import Text

from pvapy_stream import __version__
from pvapy_stream.cli.command import CliCommand
from pvapy_stream.cli.console import make_console
from pvapy_stream.cli.link import PACKAGE, SHARED, owner_of

if TYPE_CHECKING:
    import pvaccess as pva

    from pvapy_stream.pva.lazy import StreamObject

# Without an installed distribution nothing else lists what is needed.
_CORE = (
    "pvapy",
    "numpy",
    "h5py",
    "hdf5plugin",
    "psutil",
    "pydantic",
    "msgspec",
    "rich",
    "rich-argparse",
    "shtab",
)
_COMPARED = {
    "<": operator.lt, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
    ">=": operator.ge, ">": operator.gt,
}  # fmt: skip
_NOT_FOR_USERS = ("dev", "docs", "bench", "all")

_EPILOG = """\
examples:
  pvapy-stream doctor
  pvapy-stream doctor --channel pvapy:image
  pvapy-stream doctor --channel S:SRcurrentAI --provider ca
exit codes: 0 all well; 1 a problem was found; 2 wrong options
"""

State = Literal["ok", "note", "problem"]
_MARKS: dict[State, tuple[str, str]] = {
    "ok": ("ok", "green"),
    "note": ("note", "yellow"),
    "problem": ("PROBLEM", "bold red"),
}


class Finding(NamedTuple):
    """What was looked at, how it is, and what to do about it."""

    state: State
    name: str
    detail: str
    advice: str = ""


def add_arguments(made: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    made.add_argument(
        "--channel",
        metavar="NAME",
        help="check whether this channel can be reached, and show its content",
    )
    made.add_argument(
        "--provider", choices=("pva", "ca"), default="pva", help="how to reach it [default pva]"
    )
    made.add_argument(
        "--timeout",
        type=float,
        default=2.0,
        metavar="T",
        help="how long to wait for it [default 2 s]",
    )
    made.add_argument(
        "--oid-field", default="uniqueId", metavar="FIELD", help="its id field [default uniqueId]"
    )


def run(options: argparse.Namespace) -> int:
    """Look at everything; 1 if a problem was found."""
    sections: dict[str, Iterable[Finding]] = {
        "Versions": versions(),
        "Commands": commands(),
        "Network settings": environment(os.environ),
        "Access rights": access_rights(),
    }
    if options.channel:
        title = f"Channel {options.channel} ({options.provider})"
        sections[title] = channel(
            options.channel, options.provider, options.timeout, options.oid_field
        )
    console = make_console()
    problems = sum(show(console, title, findings) for title, findings in sections.items())
    summary = (
        "no problem found" if not problems else f"{problems} problem{'s' * (problems > 1)} found"
    )
    console.print(Text(f"\n{summary}", "bold red" if problems else "bold green"), soft_wrap=True)
    return 1 if problems else 0


def show(console: Console, title: str, findings: Iterable[Finding]) -> int:
    """Print a section as its findings come; how many are problems."""
    console.print(Text(title, "bold"), soft_wrap=True)
    problems = 0
    for finding in findings:
        mark, style = _MARKS[finding.state]
        line = Text.assemble("  ", (f"{mark:<7}", style), f"  {finding.name:<31} ", finding.detail)
        console.print(line, soft_wrap=True)
        if finding.advice:
            console.print(Text(f"           -> {finding.advice}", style), soft_wrap=True)
        problems += finding.state == "problem"
    return problems


# -- versions ------------------------------------------------------------------------------------


def versions() -> Iterator[Finding]:
    """Python, this package, what it needs, and its extras."""
    yield Finding("ok", "python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("ok", "pvapy_stream", f"{__version__}, {Path(__file__).parents[1]}")
    try:
        requirements = metadata.requires(PACKAGE) or []
    except metadata.PackageNotFoundError:
        requirements = []
        yield Finding(
            "note",
            "installation",
            "none, this is a source tree",
            "pip install -e .  makes the commands",
        )
    needed, extras = split_requirements(requirements)
    for name in needed or _CORE:
        version = installed(name)
        if version:
            yield Finding("ok", name, version)
        else:
            yield Finding("problem", name, "not installed", f"pip install {name}")
    for extra, names in extras.items():
        missing = [name for name in names if not installed(name)]
        present = ", ".join(f"{name} {installed(name)}" for name in names if name not in missing)
        if missing:
            detail = f"missing {', '.join(missing)}" + (f"; has {present}" if present else "")
            yield Finding(
                "note",
                f"extra {extra}",
                detail,
                f"if you need it: pip install '{PACKAGE}[{extra}]'",
            )
        else:
            yield Finding("ok", f"extra {extra}", present)


def split_requirements(requirements: Iterable[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Names of the distributions that are always needed, and those of each extra."""
    needed: list[str] = []
    extras: dict[str, list[str]] = {}
    for requirement in requirements:
        found = re.match(r"[A-Za-z0-9._-]+", requirement)
        if found is None or found.group() == PACKAGE:
            continue
        if not _is_for_this_python(requirement):
            continue
        extra = re.search(r"""extra\s*==\s*["']([^"']+)""", requirement)
        if extra is None:
            needed.append(found.group())
        elif extra.group(1) not in _NOT_FOR_USERS:
            extras.setdefault(extra.group(1), []).append(found.group())
    return needed, extras


def _is_for_this_python(requirement: str) -> bool:
    """What its marker says of the version of Python."""
    found = re.search(r"""python_version\s*([<>=!]=?)\s*["']([0-9.]+)["']""", requirement)
    if found is None:
        return True
    wanted = tuple(map(int, found[2].split(".")))
    return _COMPARED[found[1]](sys.version_info[: len(wanted)], wanted)


def installed(name: str) -> str:
    """Version of a distribution, "" when it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


# -- commands ------------------------------------------------------------------------------------


def commands() -> Iterator[Finding]:
    """Which commands the shell finds, and whose they are."""
    try:
        entries = metadata.distribution(PACKAGE).entry_points
        ours = {entry.name for entry in entries.select(group="console_scripts")}
    except metadata.PackageNotFoundError:
        ours = set(SHARED)
    yield command(PACKAGE, "")
    for name, instead in SHARED.items():
        yield command(name, f"{PACKAGE} {instead}", expected=name in ours)


def command(name: str, instead: str, expected: bool = True) -> Finding:
    """Which program a command is.

    Args:
        name: the command.
        instead: what does the same; "" for nothing.
        expected: whether this package has such a command.
    """
    path = shutil.which(name)
    if path is None:
        if not expected:
            return Finding("note", name, "not found")
        here = Path(sys.executable).parent / name
        advice = (
            f"activate the environment, or call {here}"
            if here.exists()
            else f"{PACKAGE} link"
            if instead
            else f"pip install {PACKAGE}"
        )
        return Finding("note", name, "not found by the shell", advice)
    owner = owner_of(Path(path))
    if owner == "pvapy_stream":
        return Finding("ok", name, f"{path} (this package)")
    if not expected:
        return Finding(
            "note",
            name,
            f"{path} (of {owner or 'another package'}; this package has no command of this name)",
        )
    if owner == "pvapy":
        # Both packages install a script of this name, and the one installed last has it.
        advice = f"{PACKAGE} link  or call:  {instead}"
        return Finding("problem", name, f"{path} runs pvapy, not this package", advice)
    return Finding(
        "problem",
        name,
        f"{path} belongs to neither pvapy_stream nor pvapy",
        f"check that file; {instead or PACKAGE} runs this package",
    )


# -- network -------------------------------------------------------------------------------------


def environment(variables: Mapping[str, str]) -> Iterator[Finding]:
    """EPICS variables, and settings with which nothing can be found."""
    chosen = sorted(name for name in variables if name.startswith("EPICS_"))
    if not chosen:
        yield Finding(
            "ok", "EPICS_*", "none set: channels are searched for on the networks of this machine"
        )
    for name in chosen:
        yield Finding("ok", name, variables[name] or '""')
    for kind in ("PVA", "CA"):
        automatic = variables.get(f"EPICS_{kind}_AUTO_ADDR_LIST", "YES").strip().upper() != "NO"
        if not automatic and not any(
            variables.get(f"EPICS_{kind}_{name}", "").strip()
            for name in ("ADDR_LIST", "NAME_SERVERS")
        ):
            yield Finding(
                "problem",
                f"EPICS_{kind}_ADDR_LIST",
                f"is empty while EPICS_{kind}_AUTO_ADDR_LIST is NO: no {kind} channel can be found",
                f"set EPICS_{kind}_ADDR_LIST to the addresses of the servers",
            )


# -- channel -------------------------------------------------------------------------------------


def access_rights() -> Iterator[Finding]:
    """Who may put to the channels of stages."""
    yield Finding("ok", "outputs and status channels", "read-only for clients")
    yield Finding(
        "note",
        "control channels",
        "any client that can reach a stage can put commands",
        "limit them with --control-from HOST,USER@HOST or --access-security FILE",
    )


def channel(name: str, provider: str, timeout: float, id_field: str) -> Iterator[Finding]:
    """Whether a channel answers, what it holds, and its current id."""
    import pvaccess as pva

    pv = pva.Channel(name, pva.PVA if provider == "pva" else pva.CA)
    pv.setTimeout(timeout)
    try:
        obj = pv.get("field()" if provider == "pva" else "value,alarm,timeStamp")
    except pva.PvaException as error:
        variable = f"EPICS_{provider.upper()}_ADDR_LIST"
        advice = (
            f"is its server running? does {variable} name the server's address?"
            " does a firewall let it through?"
        )
        other = "ca" if provider == "pva" else "pva"
        yield Finding(
            "problem",
            "reached",
            f"no, within {timeout:g} s ({error})",
            f"{advice} or is it --provider {other}?",
        )
        return
    yield Finding("ok", "reached", "yes")
    yield Finding("ok", "structure", structure_summary(obj))
    yield from _image(obj)
    if provider == "pva" or obj.hasField(id_field):
        yield from _current_id(obj, id_field)


def structure_summary(obj: StreamObject) -> str:
    """Fields of the top level with their types."""
    return ", ".join(f"{name} {_kind(kind)}" for name, kind in obj.getStructureDict().items())


def _kind(kind: object) -> str:
    if isinstance(kind, list):
        return f"{_kind(kind[0])}[]" if kind else "[]"
    if isinstance(kind, dict):
        return "structure"
    if isinstance(kind, tuple):
        return "union"
    return str(kind).rpartition(".")[2].lower()


def _image(obj: pva.PvObject) -> Iterator[Finding]:
    from pvapy_stream.errors import ObjectError
    from pvapy_stream.pva.ntndarray import to_frame

    if not (obj.hasField("dimension") and obj.hasField("value")):
        return
    try:
        frame = to_frame(obj)
    except ObjectError as error:
        yield Finding("problem", "image", str(error))
        return
    if frame.has_image:
        size = "x".join(map(str, frame.stored_shape))
        codec = f", {frame.codec} to {frame.payload.nbytes} bytes" if frame.codec else ""
        yield Finding(
            "ok",
            "image",
            f"{size} {frame.dtype}, {frame.color_mode.name.lower()}, {frame.nbytes} bytes{codec}",
        )
    else:
        yield Finding(
            "note",
            "image",
            "empty",
            "nothing was published yet, or the detector plugin does not publish arrays",
        )


def _current_id(obj: StreamObject, id_field: str) -> Iterator[Finding]:
    from pvapy_stream.errors import ObjectError
    from pvapy_stream.pva.objects import id_reader

    try:
        yield Finding("ok", f"current {id_field}", str(id_reader(id_field, obj)(obj)))
    except ObjectError as error:
        yield Finding("note", f"current {id_field}", "none", str(error))


COMMAND = CliCommand(
    "pvapy-stream doctor",
    "Look at the installation, the network settings and, if asked, a channel.",
    run,
    _EPILOG,
    add_arguments=add_arguments,
)
main = COMMAND.main
