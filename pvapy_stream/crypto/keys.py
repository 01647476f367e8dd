"""Keys in PEM files: made, written, read, and distinguished.

An *encryption* pair is RSA: objects are encrypted for whoever holds the private key. A *signing*
pair is Ed25519, or RSA: objects come from whoever holds the private key.
"""

from __future__ import annotations

import getpass
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from Crypto.PublicKey import ECC, RSA
from Crypto.PublicKey.ECC import EccKey
from Crypto.PublicKey.RSA import RsaKey

from pvapy_stream.errors import CryptoError

Kind = Literal["encryption", "signing"]
Key = RsaKey | EccKey

RSA_BITS = 3072
MIN_RSA_BITS = 2048
_ED25519 = "Ed25519"

_PROTECTION = "scryptAndAES256-CBC"
_SCRYPT: Any = {"iteration_count": 2**17, "block_size": 8, "parallelization": 1}  # 128 MiB, 0.4 s
_MAX_FILE = 64 * 1024  # bytes

_PRIVATE = ("PRIVATE KEY", "ENCRYPTED PRIVATE KEY", "RSA PRIVATE KEY")
_PUBLIC = ("PUBLIC KEY", "RSA PUBLIC KEY")


@dataclass(frozen=True, slots=True)
class Passphrase:
    """Where the passphrase of a private key comes from: a file, a variable, or else a prompt.

    Attributes:
        file: its first line is the passphrase.
        env: the name of the environment variable that has it.
        prompt: whether to ask at the terminal when neither is given.
    """

    file: str = ""
    env: str = ""
    prompt: bool = True

    def get(self, what: str, *, twice: bool = False) -> str:
        """The passphrase.

        Args:
            what: what it is for, for the prompt and messages.
            twice: ask twice, for a new one.

        Raises:
            CryptoError: it cannot be had, or is empty.
        """
        if self.file:
            found = self._from_file()
        elif self.env:
            found = os.environ.get(self.env, "")
            if not found:
                raise CryptoError(
                    f"environment variable {self.env} with the passphrase of {what} is not set;"
                    " set it, or give a passphrase file"
                )
        else:
            found = self._ask(what, twice)
        if not found:
            raise CryptoError(f"the passphrase of {what} is empty; give one")
        return found

    def _from_file(self) -> str:
        try:
            text = Path(self.file).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CryptoError(
                f"passphrase file {self.file} cannot be read ({_reason(error)}); give a text file"
                " that this user may read"
            ) from error
        return text.split("\n", 1)[0].rstrip("\r")

    def _ask(self, what: str, twice: bool) -> str:
        if not (self.prompt and _has_terminal()):
            raise CryptoError(
                f"{what} needs a passphrase and there is no terminal to ask for it; name a file or"
                " an environment variable that has it"
            )
        found = getpass.getpass(f"Passphrase of {what}: ")
        if twice and getpass.getpass("Once more: ") != found:
            raise CryptoError("the two passphrases differ; try again")
        return found


def make_key(kind: Kind, rsa_bits: int = RSA_BITS) -> Key:
    """A new private key: RSA for encryption (seconds of work), Ed25519 for signing."""
    return RSA.generate(rsa_bits) if kind == "encryption" else ECC.generate(curve=_ED25519)


def public_key(key: Key) -> Key:
    """The public half of a key."""
    return key.public_key()


def key_id(key: Key) -> bytes:
    """The first 8 bytes of the SHA-256 of the public key in DER."""
    der = public_key(key).export_key(format="DER")
    return hashlib.sha256(der if isinstance(der, bytes) else der.encode()).digest()[:8]


def check_free(name: str, directory: Path) -> tuple[Path, Path]:
    """The files of a new pair, private and public.

    Raises:
        CryptoError: one is there already.
    """
    files = directory / f"{name}.pem", directory / f"{name}.pub.pem"
    present = [str(path) for path in files if path.exists()]
    if present:
        raise CryptoError(
            f"{' and '.join(present)} would be overwritten; choose another name, or move the old"
            " key away"
        )
    return files


def write_pair(key: Key, name: str, directory: Path, passphrase: str | None) -> tuple[Path, Path]:
    """Write NAME.pem (mode 0600) and NAME.pub.pem.

    Args:
        key: a private key.
        name: of the pair.
        directory: made when it is not there.
        passphrase: protects the private key; None leaves it open.

    Raises:
        CryptoError: a file is there already, or cannot be written.
    """
    private, public = check_free(name, directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        _write(private, _private_pem(key, passphrase), 0o600)
        _write(public, _pem(public_key(key).export_key(format="PEM")), 0o644)
    except OSError as error:
        raise CryptoError(
            f"cannot write into {directory} ({_reason(error)}); give another directory"
        ) from error
    return private, public


def load_private(path: str | Path, kind: Kind, passphrase: Passphrase | None = None) -> Key:
    """Read a private key.

    Raises:
        CryptoError: naming the file and what to do.
    """
    text, label = _read_pem(path)
    if label in _PUBLIC:
        raise CryptoError(
            f"{path} is a public key where the private one is needed; give the file without .pub"
        )
    if label not in _PRIVATE:
        raise CryptoError(_not_ours(path, label))
    secret: str | None = None
    if "ENCRYPTED" in text:
        secret = (passphrase or Passphrase()).get(f"key {path}")
    try:
        key = _import(text, secret)
    except (ValueError, IndexError, TypeError) as error:
        why = "the passphrase is wrong, or the file is damaged" if secret else "it is damaged"
        raise CryptoError(f"private key {path} cannot be read: {why}") from error
    return _checked(key, path, kind)


def load_public(path: str | Path, kind: Kind) -> Key:
    """Read a public key.

    Raises:
        CryptoError: naming the file and what to do.
    """
    text, label = _read_pem(path)
    if label in _PRIVATE:
        raise CryptoError(
            f"{path} is a private key where a public one is needed; give the .pub.pem file, and"
            " keep the private key with its owner"
        )
    if label not in _PUBLIC:
        raise CryptoError(_not_ours(path, label))
    try:
        key = _import(text, None)
    except (ValueError, IndexError, TypeError) as error:
        raise CryptoError(f"public key {path} cannot be read: it is damaged") from error
    return _checked(key, path, kind)


def check_kind(key: Key, kind: Kind, what: str) -> None:
    """See that a key serves.

    Raises:
        CryptoError: it is of another type, or too small.
    """
    if isinstance(key, RsaKey):
        if key.size_in_bits() < MIN_RSA_BITS:
            raise CryptoError(
                f"{what} has {key.size_in_bits()} bits, which can be broken; RSA keys need"
                f" {MIN_RSA_BITS}: make one with pvapy-stream keygen"
            )
    elif kind == "encryption" or key.curve != _ED25519:
        needs = "RSA" if kind == "encryption" else f"{_ED25519} or RSA"
        raise CryptoError(
            f"{what} is a key of type {key.curve}, and {kind} needs {needs}: make one with"
            f" pvapy-stream keygen --kind {kind}"
        )


def _checked(key: Key, path: str | Path, kind: Kind) -> Key:
    check_kind(key, kind, f"key {path}")
    return key


def _import(text: str, secret: str | None) -> Key:
    try:
        return RSA.import_key(text, passphrase=secret)
    except (ValueError, IndexError, TypeError):
        return ECC.import_key(text, passphrase=secret)


def _read_pem(path: str | Path) -> tuple[str, str]:
    """Text of a PEM file and the label of its first block."""
    try:
        with Path(path).expanduser().open("rb") as file:
            raw = file.read(_MAX_FILE)
    except OSError as error:
        raise CryptoError(
            f"key {path} cannot be read ({_reason(error)}); give the path of a PEM file that this"
            " user may read"
        ) from error
    text = raw.decode("ascii", "replace")
    _, begin, rest = text.partition("-----BEGIN ")
    label, end, _ = rest.partition("-----")
    if not (begin and end):
        raise CryptoError(_not_ours(path, ""))
    return text[text.index("-----BEGIN ") :], label


def _not_ours(path: str | Path, label: str) -> str:
    is_what = f"a PEM file with a {label!r}" if label else "no PEM file"
    return (
        f"{path} is {is_what}, not a key; give one made with pvapy-stream keygen, or with openssl"
        " in PEM format"
    )


def _private_pem(key: Key, passphrase: str | None) -> str:
    if passphrase is None:
        pem = (
            key.export_key(format="PEM", pkcs=8)
            if isinstance(key, RsaKey)
            else key.export_key(format="PEM")
        )
    elif isinstance(key, RsaKey):
        pem = key.export_key(
            format="PEM", pkcs=8, passphrase=passphrase, protection=_PROTECTION, prot_params=_SCRYPT
        )
    else:
        pem = key.export_key(
            format="PEM", passphrase=passphrase, protection=_PROTECTION, prot_params=_SCRYPT
        )
    return _pem(pem)


def _pem(pem: str | bytes) -> str:
    return (pem if isinstance(pem, str) else pem.decode("ascii")) + "\n"


def _write(path: Path, text: str, mode: int) -> None:
    # Made with its mode, so that nobody else may read it even for a moment.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)


def _has_terminal() -> bool:
    try:
        with open("/dev/tty"):
            return True
    except OSError:
        return False


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not text"
