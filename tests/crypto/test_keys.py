from __future__ import annotations

import builtins
import hashlib
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from Crypto.PublicKey import ECC

from pvapy_stream.crypto import keys
from pvapy_stream.crypto.keys import (
    Passphrase,
    key_id,
    load_private,
    load_public,
    make_key,
    public_key,
    write_pair,
)
from pvapy_stream.errors import CryptoError
from tests.crypto.keyring import key

NO_PROMPT = Passphrase(prompt=False)


@pytest.fixture(autouse=True)
def quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_SCRYPT", {**keys._SCRYPT, "iteration_count": 2**10})


@pytest.mark.parametrize("kind", ["encryption", "signing"])
@pytest.mark.parametrize("secret", [None, "süß und geheim"])
def test_keys_are_read_as_they_were_written(tmp_path: Path, kind: Any, secret: str | None) -> None:
    folder = tmp_path / "new" / "folder"
    private, public = write_pair(key(kind), "mine", folder, secret)
    assert (private.name, public.name) == ("mine.pem", "mine.pub.pem")
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "ENCRYPTED" in private.read_text() if secret else "ENCRYPTED" not in private.read_text()
    (tmp_path / "secret").write_text(f"{secret}\nnot this\n", encoding="utf-8")
    source = Passphrase(file=str(tmp_path / "secret"))
    assert load_private(private, kind, source) == key(kind)
    assert load_public(public, kind) == public_key(key(kind))


def test_key_ids_are_of_the_public_key() -> None:
    for kind in ("encryption", "signing"):
        private = key(kind)
        der = public_key(private).export_key(format="DER")
        assert key_id(private) == key_id(public_key(private)) == hashlib.sha256(der).digest()[:8]
    assert key_id(key("signing")) != key_id(key("signing", 1))


def test_a_passphrase_from_the_environment_and_from_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = write_pair(key("signing"), "k", tmp_path, "geheim")
    monkeypatch.setenv("K_SECRET", "geheim")
    assert load_private(private, "signing", Passphrase(env="K_SECRET")) == key("signing")
    asked: list[str] = []
    monkeypatch.setattr(keys, "_has_terminal", lambda: True)
    monkeypatch.setattr(keys.getpass, "getpass", lambda text: asked.append(text) or "geheim")
    assert load_private(private, "signing") == key("signing")
    assert asked == [f"Passphrase of key {private}: "]
    assert Passphrase().get("new key", twice=True) == "geheim"
    assert len(asked) == 3


def test_passphrases_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("K_SECRET", raising=False)
    empty = tmp_path / "empty"
    empty.write_text("\n")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe")
    for source, message in (
        (Passphrase(env="K_SECRET"), "K_SECRET with the passphrase of my key is not set"),
        (Passphrase(file=str(tmp_path / "no")), r"no cannot be read \(No such file"),
        (Passphrase(file=str(empty)), "the passphrase of my key is empty"),
        (Passphrase(file=str(binary)), "it is not text"),
        (NO_PROMPT, "no terminal to ask"),
    ):
        with pytest.raises(CryptoError, match=message):
            source.get("my key")
    answers = iter(["one", "two"])
    monkeypatch.setattr(keys, "_has_terminal", lambda: True)
    monkeypatch.setattr(keys.getpass, "getpass", lambda _: next(answers))
    with pytest.raises(CryptoError, match="the two passphrases differ"):
        Passphrase().get("new key", twice=True)


def test_the_wrong_passphrase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SECRET", "falsch")
    for kind in ("encryption", "signing"):
        private, _ = write_pair(key(kind), kind, tmp_path, "geheim")
        with pytest.raises(
            CryptoError, match=rf"{private} cannot be read: the passphrase is wrong"
        ):
            load_private(private, kind, Passphrase(env="K_SECRET"))


def test_keys_in_each_others_place(tmp_path: Path) -> None:
    private, public = write_pair(key("signing"), "sign", tmp_path, None)
    private_rsa, public_rsa = write_pair(key("encryption"), "rsa", tmp_path, None)
    with pytest.raises(CryptoError, match=rf"{public} is a public key where the private one"):
        load_private(public, "signing")
    with pytest.raises(CryptoError, match=rf"{private} is a private key where a public one"):
        load_public(private, "signing")
    with pytest.raises(CryptoError, match=rf"key {public} is a key of type Ed25519"):
        load_public(public, "encryption")
    with pytest.raises(CryptoError, match="make one with pvapy-stream keygen --kind encryption"):
        load_private(private, "encryption")
    # RSA signs as well.
    assert load_private(private_rsa, "signing") == key("encryption")
    assert load_public(public_rsa, "signing") == public_key(key("encryption"))


def test_keys_that_are_too_small_or_of_another_type(tmp_path: Path) -> None:
    private, public = write_pair(make_key("encryption", 1024), "small", tmp_path, None)
    for load, path in ((load_private, private), (load_public, public)):
        with pytest.raises(CryptoError, match=rf"key {path} has 1024 bits, which can be broken"):
            load(path, "encryption")
    nist = tmp_path / "nist.pem"
    nist.write_text(ECC.generate(curve="P-256").export_key(format="PEM"))
    with pytest.raises(CryptoError, match="signing needs Ed25519 or RSA"):
        load_private(nist, "signing")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is no PEM file, not a key"),
        (b"\xff\x00" * 1000, "is no PEM file"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "'CERTIFICATE'"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAA==\n", "'OPENSSH PRIVATE KEY'"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "damaged"),
        (b"-----BEGIN PRIVATE KEY-----\n", "damaged"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "damaged"),
    ],
)
def test_files_that_are_no_keys(tmp_path: Path, text: bytes, message: str) -> None:
    file = tmp_path / "file.pem"
    file.write_bytes(text)
    public = b"PUBLIC" in text
    with pytest.raises(CryptoError, match=message) as caught:
        load_public(file, "signing") if public else load_private(file, "signing", NO_PROMPT)
    assert str(file) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CryptoError, match=r"cannot be read \(No such file or directory\)"):
        load_private(tmp_path / "no.pem", "signing")
    with pytest.raises(CryptoError, match=r"cannot be read \(Is a directory\)"):
        load_public(tmp_path, "signing")


def test_a_terminal_is_found_by_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(*_: Any) -> Any:
        raise OSError

    monkeypatch.setattr(builtins, "open", no_device)
    assert not keys._has_terminal()
    monkeypatch.setattr(builtins, "open", lambda *_: os.fdopen(os.dup(0)))
    assert keys._has_terminal()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    _, public = write_pair(key("signing"), "k", tmp_path, None)
    before = public.read_text()
    (tmp_path / "k.pem").unlink()
    with pytest.raises(CryptoError, match=rf"{public} would be overwritten"):
        write_pair(key("signing", 1), "k", tmp_path, None)
    assert public.read_text() == before
    assert not (tmp_path / "k.pem").exists()
    with pytest.raises(CryptoError, match="give another directory"):
        write_pair(key("signing"), "k", public, None)
