from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pvapy_stream import __version__
from pvapy_stream.cli import main as cli
from pvapy_stream.cli.completion import command_tree
from tests.support import PATIENCE, Source


def python(code: str, *args: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    ).stdout


@pytest.mark.parametrize("argv", [[], ["-h"], ["--help"]])
def test_the_commands_are_listed(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(argv) == 0
    shown = capsys.readouterr().out
    for name, command in cli.commands().items():
        assert f"  {name} " in shown
        assert command.help in shown
    heads = [line for line in shown.splitlines() if line.endswith(":")]
    assert heads == [f"{group}:" for group in cli.GROUPS]
    assert [alias for alias in cli.ALIASES if f"\n  {alias} " in shown] == []


@pytest.mark.parametrize("flag", ["-v", "--version"])
def test_version(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([flag]) == 0
    assert capsys.readouterr().out == f"pvapy-stream {__version__}\n"


def test_the_package_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pvapy_stream", "consummer"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "did you mean 'consumer'?" in done.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("consummer", "no command 'consummer'; did you mean 'consumer'?"),
        ("new_processor", "did you mean 'new-processor'?"),
        ("xyzzy", "no command 'xyzzy'; pvapy-stream -h lists the commands"),
        ("sav", "did you mean 'save'?"),
        ("--channel", "no option '--channel'"),
    ],
)
def test_unknown_commands(name: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_listing_commands_imports_none_of_them() -> None:
    shown = python(
        "import sys; from pvapy_stream.cli.main import main; main(['-h']);"
        "ours = [m for m in sys.modules if m.startswith('pvapy_stream.cli.')];"
        "print(ours, {'numpy', 'pvaccess', 'pydantic', 'rich'} & set(sys.modules))"
    )
    assert shown.splitlines()[-1] == "['pvapy_stream.cli.main'] set()"


# What few programs use, and what others than these do.
UNUSED = ("areadetector", "daq", "monitor", "preflight", "web", "web_security", "workflow")
LATE = {
    "consumer": (
        "pvapy_stream.hpc.collector",
        "pvapy_stream.hpc.reorder",
        "pvapy_stream.mirror.mirror_server",
        "pvapy_stream.settings.collector_settings",
        "pvapy_stream.settings.mirror_settings",
    ),
    "collector": ("pvapy_stream.mirror.mirror_server", "pvapy_stream.settings.mirror_settings"),
    "mirror": ("pvapy_stream.hpc.stage", "pvapy_stream.settings.consumer_settings"),
    "sim": ("pvapy_stream.hpc.stage", "pvapy_stream.settings.consumer_settings"),
    "audit": ("pvaccess", "pvapy_stream.settings", "pydantic"),
}


@pytest.mark.parametrize(
    "words",
    [
        ["consumer", "-ic", "{prefix}none", "-oc", "{prefix}out", "-rt", "0.01"],
        ["collector", "-pid", "1,2", "-ic", "{prefix}*", "-rt", "0.01"],
        ["mirror", "--channel-map", "({prefix}m,{prefix}none)", "-rt", "0.01"],
        ["project", "list"],
        ["audit", "none.json"],
        ["sim", "-cn", "{prefix}sim", "-nx", "4", "-rt", "0.1", "-std", "0", "-shd", "0"],
    ],
    ids=lambda words: words[0],
)
def test_a_program_imports_only_what_it_uses(words: list[str], prefix: str) -> None:
    late = ("asyncio", "difflib", "h5py", "hdf5plugin", "http", "matplotlib", "numpy.ma")
    late += ("iceoryx2", "numpy.testing", "ssl", "zmq")
    if words[0] != "project":
        late += tuple(f"pvapy_stream.{name}" for name in UNUSED)
    # What draws on terminals, and what reads workflows.
    late += {"audit": ("yaml",), "project": ()}.get(words[0], ("rich.console", "yaml"))
    late += LATE.get(words[0], ())
    argv = [word.format(prefix=prefix) for word in words]
    shown = python(
        f"import sys; from pvapy_stream.cli.main import main; main({argv});"
        f"print([name for name in {late} if name in sys.modules])"
    )
    assert shown.splitlines()[-1] == "[]"


def test_the_module_of_every_command_is_there() -> None:
    folder = Path(cli.__file__).parent
    assert [
        name for name, c in cli.commands().items() if not (folder / f"{c.module}.py").is_file()
    ] == []


def test_every_file_with_a_command_is_listed() -> None:
    folder = Path(cli.__file__).parent
    files = {path.stem for path in folder.glob("*.py") if "\nCOMMAND = " in path.read_text()}
    assert files == {entry.module for entry in cli.commands().values()}


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([name, "--help"])
    assert ended.value.code == 0
    assert "--help" in capsys.readouterr().out


def test_help_shows_defaults_and_units(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        cli.main(["consumer", "-h"])
    shown = capsys.readouterr().out
    assert "time between updates of the status channel [default 1 s]" in shown
    assert "[required]" in shown


@pytest.mark.parametrize("alias", cli.ALIASES)
def test_earlier_names_lead_to_the_new_ones(
    alias: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown: list[str] = []
    for words in ([alias], list(cli.ALIASES[alias])):
        with pytest.raises(SystemExit) as ended:
            cli.main([*words, "-h"])
        assert ended.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1] != ""


def test_wrong_options_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["try"])
    assert ended.value.code == 2
    assert "FILE:CLASS" in capsys.readouterr().err


def test_it_runs_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pvapy_stream.cli.main", "nonsense"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: pvapy-stream has no command")


def test_the_tree_has_the_options_of_all_commands() -> None:
    top = command_tree()
    (commands,) = [action for action in top._actions if action.dest == "command"]
    parsers = dict(commands.choices)
    assert list(parsers) == list(cli.commands())
    assert "--input-channel" in parsers["consumer"]._option_string_actions
    assert "--oid-field" in parsers["doctor"]._option_string_actions


def complete(script: Path, *words: str, begun: str = "", path: Path | str = "") -> list[str]:
    """What bash offers for the last word if that is an option, else for the next one."""
    typed = [*words] if words[-1].startswith("-") and not begun else [*words, begun or "''"]
    code = f"""
        PATH={path}:$PATH
        source {script}
        COMP_WORDS=({" ".join(typed)}); COMP_CWORD={len(typed) - 1}
        COMP_LINE="${{COMP_WORDS[*]}}"; COMP_POINT=${{#COMP_LINE}}
        $(complete -p {words[0]} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "-c", code], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    return done.stdout.split()


def test_bash_completes_commands_and_their_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    assert set(cli.commands()) <= set(complete(script, "pvapy-stream"))
    assert "--input-channel" in complete(script, "pvapy-stream", "consumer", "--inp")
    assert {"create", "schedule", "stop"} <= set(complete(script, "pvapy-stream", "project"))
    assert set(complete(script, "pvapy-stream", "completion")) >= {"bash", "zsh", "tcsh"}
    # Values of options, files, and the names that pvapy has too.
    assert {"shm"} <= set(complete(script, "pvapy-stream", "consumer", "--input-mode", begun="s"))
    assert "--input-channel" in complete(script, "pvapy-hpc-consumer", "--inp")
    (tmp_path / "mine.py").touch()
    there = complete(script, "pvapy-stream", "consumer", "--processor-file", begun=f"{tmp_path}/m")
    assert there == [f"{tmp_path}/mine.py"]


def test_bash_completes_channels_that_are_there(
    tmp_path: Path, source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    script = tmp_path / "completion.bash"
    script.write_text(capsys.readouterr().out)
    (tmp_path / "pvapy-stream").write_text(
        f'#!/bin/sh\nexec {sys.executable} -m pvapy_stream "$@"\n'
    )
    (tmp_path / "pvapy-stream").chmod(0o755)
    name = source.channel
    begun = name.removesuffix("image")
    for words in (
        ("pvapy-stream", "consumer", "--input-channel"), ("pvapy-hpc-consumer", "-ic"),
        ("pvapy-stream", "top", "--status-channel"),
    ):  # fmt: skip
        assert complete(script, *words, begun=begun, path=tmp_path) == [name]
    # A new name is the user's to choose.
    assert complete(script, "pvapy-stream", "consumer", "-oc", begun=begun, path=tmp_path) == []


def test_channels_are_listed(
    source: Source, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["channels", f"{prefix}*"]) == 0
    assert capsys.readouterr().out == f"{source.channel}\n"
    assert cli.main(["channels", f"{prefix}none"]) == 1


@pytest.mark.parametrize(
    ("shell", "start"), [("zsh", "#compdef pvapy-stream"), ("tcsh", "complete pvapy-stream ")]
)
def test_other_shells(shell: str, start: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    shown = capsys.readouterr().out
    assert start in shown
    assert "new-processor" in shown
