from __future__ import annotations

import stat
from pathlib import Path

import pytest

from pvapy_stream.cli.main import main
from pvapy_stream.crypto import keys
from pvapy_stream.crypto.keys import MIN_RSA_BITS, Passphrase, key_id, load_private, load_public


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT", {**keys._SCRYPT, "iteration_count": 2**10})
    monkeypatch.setattr(keys, "_has_terminal", lambda: False)
    monkeypatch.setattr(keys.make_key, "__defaults__", (MIN_RSA_BITS,))


@pytest.mark.parametrize("kind", ["encryption", "signing"])
def test_a_pair_is_made_and_can_be_used(
    kind: keys.Kind, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret").write_text("geheim\n")
    source = ["--passphrase-file", str(tmp_path / "secret")]
    folder = tmp_path / "keys"
    assert main(["keygen", "mine", "--kind", kind, "--directory", str(folder), *source]) == 0
    shown = capsys.readouterr().out
    private = load_private(folder / "mine.pem", kind, Passphrase(file=str(tmp_path / "secret")))
    assert key_id(private) == key_id(load_public(folder / "mine.pub.pem", kind))
    assert f"{kind} key {key_id(private).hex()}\n" in shown
    assert str(folder / "mine.pub.pem") in shown
    assert stat.S_IMODE((folder / "mine.pem").stat().st_mode) == 0o600


def test_without_a_passphrase_and_with_one_from_the_environment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    common = ["--kind", "signing", "--directory", str(tmp_path)]
    assert main(["keygen", "a", "--no-passphrase", *common]) == 0
    assert "it has no passphrase" in capsys.readouterr().out
    load_private(tmp_path / "a.pem", "signing", Passphrase(prompt=False))
    monkeypatch.setenv("SECRET", "geheim")
    assert main(["keygen", "b", "--passphrase-env", "SECRET", *common]) == 0
    load_private(tmp_path / "b.pem", "signing", Passphrase(env="SECRET"))


def test_what_cannot_be_done_says_so_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECRET", raising=False)
    common = ["--kind", "signing", "--directory", str(tmp_path)]
    for arguments, code, message in (
        (["k"], 1, "no terminal to ask"),
        (["k", "--passphrase-env", "SECRET"], 1, "SECRET with the passphrase of new key k"),
        (["k", "--passphrase-file", str(tmp_path / "no")], 1, "cannot be read"),
        (["../k", "--no-passphrase"], 2, "is not a name for files"),
        (["", "--no-passphrase"], 2, "is not a name for files"),
        ([".k", "--no-passphrase"], 2, "is not a name for files"),
    ):
        assert main(["keygen", *arguments, *common]) == code
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "k.pub.pem").write_text("mine")
    arguments = ["keygen", "k", "--kind", "signing", "--directory", str(tmp_path)]
    # Said before a passphrase is asked for.
    assert main(arguments) == 1
    assert "k.pub.pem would be overwritten" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["k.pub.pem"]


def test_wrong_options(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (
        ["keygen"],
        ["keygen", "k", "--kind", "other"],
        ["keygen", "k", "--no-passphrase", "--passphrase-env", "X"],
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "not allowed with" in capsys.readouterr().err
