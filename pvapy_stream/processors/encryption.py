"""Encryption between stages: pairs of processors for images, and for objects of any structure.

``AdImageEncryptor`` and ``AdImageDecryptor``, ``DataEncryptor`` and ``DataDecryptor``.

Arguments of the encryptors (``--processor-args``, or a `configure` command):

- stream: a name that both sides give; objects of another stream are refused.
- recipientPublicKey: PEM file; only the holder of its private key can read the objects.
- signingPrivateKey: PEM file; proves to the recipient who sent the objects.
- passphraseFile or passphraseEnv: file or environment variable with the passphrase of the private
  key, if it has one; else the terminal asks for it.

Arguments of the decryptors:

- stream, passphraseFile, passphraseEnv: as above.
- decryptionPrivateKey: PEM file, the private half of the recipient's key.
- senderPublicKeys: PEM files of accepted senders (a list, or separated by commas).
- maxAge: age beyond which an object is refused, s (default 300; 0 for no limit).
- reorderWindow: by how many objects an object may be late (default 0: in order); each object is
  accepted only once.

A `configure` command can only decrease maxAge and reorderWindow.

Every refused object counts as failed in the stage; the statistics count it by the failed check.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva

from pvapy_stream.crypto.envelope import CHECKS, MAX_AGE, Opener, Sealer, read_header
from pvapy_stream.crypto.keys import Passphrase, key_id, load_private, load_public
from pvapy_stream.crypto.replay import ReplayGuard
from pvapy_stream.errors import CryptoError, ObjectError, SettingsError
from pvapy_stream.hpc.processor import UserDataProcessor
from pvapy_stream.pva.objects import IdReader, id_reader
from pvapy_stream.pva.serial import ObjectWriter, blank, loads

__all__ = ["AdImageDecryptor", "AdImageEncryptor", "DataDecryptor", "DataEncryptor"]

# Its stub does not know of type ids.
_PvObject: Any = pva.PvObject

TYPE_ID = "pvapy_stream:Encrypted:1.0"
_STRUCTURE = {
    "uniqueId": pva.LONG,
    "stream": pva.STRING,
    "keyId": pva.STRING,
    "senderKeyId": pva.STRING,
    "encrypted": [pva.UBYTE],
}
_IMAGE_FIELDS = ("value", "dimension", "uniqueId", "codec", "attribute")

# The checks of the envelope, and two of the decryptors.
_ALL_CHECKS: tuple[str, ...] = (*CHECKS, "field", "object")


class _Configured(UserDataProcessor):
    """Arguments that may be given anew while the stage runs."""

    _TEXTS: tuple[str, ...] = ()
    _NUMBERS: tuple[str, ...] = ()

    def __init__(self, configDict: dict[str, Any] | None = None) -> None:
        super().__init__(configDict)
        self._given: dict[str, object] = {}
        self.resetStats()
        self._take(configDict or {})

    def configure(self, configDict: Any) -> None:
        """Take new arguments; keys are read anew.

        Raises:
            SettingsError: an argument is missing or wrong.
            CryptoError: a key cannot be used; the keys from before stay.
        """
        if any(name in configDict for name in (*self._TEXTS, *self._NUMBERS)):
            self._take(configDict)

    def _take(self, given: dict[str, Any]) -> None:
        names = (*self._TEXTS, *self._NUMBERS)
        merged = {**self._given, **{name: given[name] for name in names if name in given}}
        for name in self._NUMBERS:
            value = merged.get(name, 0)
            number = not isinstance(value, bool) and isinstance(value, (int, float))
            if not number or not math.isfinite(value) or value < 0:
                raise SettingsError(f"{name} is {value!r}; it must be a number, 0 or more")
        self._apply(merged)
        self._given = merged

    def _apply(self, given: dict[str, Any]) -> None:
        raise NotImplementedError

    def _text(self, given: dict[str, Any], name: str) -> str:
        value = given.get(name)
        if not isinstance(value, str) or not value:
            raise SettingsError(
                f"{type(self).__name__} needs {name}; give it in --processor-args, such as"
                f' {{"{name}": "…"}}'
            )
        return value

    def _passphrase(self, given: dict[str, Any]) -> Passphrase:
        return Passphrase(str(given.get("passphraseFile", "")), str(given.get("passphraseEnv", "")))


class DataEncryptor(_Configured):
    """Encrypts objects of any structure; their id is taken from the stage's id field."""

    _TEXTS = (
        "stream",
        "recipientPublicKey",
        "signingPrivateKey",
        "passphraseFile",
        "passphraseEnv",
    )

    _read_id: IdReader | None = None

    def _apply(self, given: dict[str, Any]) -> None:
        stream = self._text(given, "stream")
        recipient = load_public(self._text(given, "recipientPublicKey"), "encryption")
        signer = load_private(
            self._text(given, "signingPrivateKey"), "signing", self._passphrase(given)
        )
        self._sealer = Sealer(recipient, signer, stream)
        self._writer = ObjectWriter()
        self._template = _PvObject(
            _STRUCTURE,
            {
                "stream": stream,
                "keyId": self._sealer.recipient_id.hex(),
                "senderKeyId": self._sealer.sender_id.hex(),
            },
            TYPE_ID,
        )

    def process(self, pvObject: Any) -> Any:
        made = self._seal(pvObject)
        self.updateOutputChannel(made)
        self.n_encrypted += 1
        return made

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        # The channel begins with the first object, encrypted: so the other side learns what
        # structure it will publish.
        return self._seal(pvObject)

    def _seal(self, obj: pva.PvObject) -> pva.PvObject:
        if self._read_id is None:
            self._read_id = id_reader(self.objectIdField or "uniqueId", obj)
        number = self._read_id(obj)
        sealed = self._sealer.seal(number, *self._writer.parts(obj))
        made = self._template.copy()
        made.setLong("uniqueId", number)
        made["encrypted"] = np.frombuffer(sealed, np.uint8)
        return made

    def resetStats(self) -> None:
        self.n_encrypted = 0

    def getStats(self) -> dict[str, Any]:
        return {"nEncrypted": self.n_encrypted}

    def getStatsPvaTypes(self) -> dict[str, object]:
        return {"nEncrypted": pva.ULONG}


class AdImageEncryptor(DataEncryptor):
    """Encrypts area detector images (NTNDArray), with attributes and codec."""

    def _seal(self, obj: pva.PvObject) -> pva.PvObject:
        _require_image(obj)
        return super()._seal(obj)


class DataDecryptor(_Configured):
    """Publishes the original objects of an encryptor, of any structure."""

    _TEXTS = (
        "stream",
        "decryptionPrivateKey",
        "senderPublicKey",
        "senderPublicKeys",
        "passphraseFile",
        "passphraseEnv",
    )
    _NUMBERS = ("maxAge", "reorderWindow")

    _guard: ReplayGuard | None = None
    _max_age: float = 0

    def _apply(self, given: dict[str, Any]) -> None:
        stream = self._text(given, "stream")
        private = load_private(
            self._text(given, "decryptionPrivateKey"), "encryption", self._passphrase(given)
        )
        senders = [load_public(path, "signing") for path in self._sender_files(given)]
        window, max_age = int(given.get("reorderWindow", 0)), given.get("maxAge", MAX_AGE)
        guard = self._guard
        if guard is None:
            guard = ReplayGuard(window)
        else:
            # Who may put commands must not be able to play old objects again.
            _only_smaller("reorderWindow", window, guard.window)
            _only_smaller("maxAge", max_age or math.inf, self._max_age or math.inf)
            guard.tighten(window)
        self._opener = Opener(
            private,
            {key_id(key): key for key in senders},
            stream,
            guard=guard,
            max_age=max_age,
        )
        self._guard, self._max_age = guard, max_age

    def _sender_files(self, given: dict[str, Any]) -> list[str]:
        value = given.get("senderPublicKeys", given.get("senderPublicKey"))
        files = value.split(",") if isinstance(value, str) else value
        if (
            not isinstance(files, (list, tuple))
            or not files
            or not all(isinstance(file, str) and file.strip() for file in files)
        ):
            raise SettingsError(
                f"{type(self).__name__} needs senderPublicKeys, the PEM files of accepted senders;"
                " give a list of paths in --processor-args"
            )
        return [str(Path(file.strip())) for file in files]

    def process(self, pvObject: Any) -> Any:
        try:
            obj = self._unseal(pvObject, self._opener.open)
        except CryptoError as error:
            self.n_refused[error.check] += 1
            raise
        self.updateOutputChannel(obj)
        self.n_decrypted += 1
        return obj

    def getOutputPvObjectType(self, pvObject: Any) -> Any:
        try:
            return blank(self._unseal(pvObject, self._opener.peek))
        except CryptoError as error:
            # The runner fails this object and asks again with the next one.
            self.n_refused[error.check] += 1
            raise

    def _unseal(self, obj: Any, opened: Callable[[Any], tuple[int, memoryview]]) -> Any:
        try:
            sealed = obj["encrypted"]
            shown = tuple(obj[name] for name in ("uniqueId", "stream", "keyId", "senderKeyId"))
            data = np.ascontiguousarray(sealed, np.uint8).data
        except (pva.PvaException, TypeError, ValueError, OverflowError) as error:
            raise CryptoError(
                f"the object is not from an encryptor ({error}); is the input channel the output"
                " of an encrypting consumer?",
                "format",
            ) from error
        # What is sent beside the envelope is for readers of the channel; it must not mislead them.
        # The envelope's own header is vouched for right after.
        header = read_header(data)
        stream = header.stream.decode("utf-8", "replace")
        if shown != (header.object_id, stream, header.recipient.hex(), header.sender.hex()):
            raise CryptoError(
                f"the fields outside the envelope of object {header.object_id} differ from the"
                " sealed ones",
                "field",
            )
        number, payload = opened(data)
        try:
            return self._accepted(loads(payload))
        except ObjectError as error:
            raise CryptoError(
                f"object {number} is correctly sealed, but {error}", "object"
            ) from error

    def _accepted(self, obj: pva.PvObject) -> Any:
        return obj

    def resetStats(self) -> None:
        self.n_decrypted = 0
        self.n_refused = dict.fromkeys(_ALL_CHECKS, 0)

    def getStats(self) -> dict[str, Any]:
        return {
            "nDecrypted": self.n_decrypted,
            "nRefused": sum(self.n_refused.values()),
            **{f"nRefused{check.title()}": count for check, count in self.n_refused.items()},
        }

    def getStatsPvaTypes(self) -> dict[str, object]:
        return dict.fromkeys(self.getStats(), pva.ULONG)


class AdImageDecryptor(DataDecryptor):
    """Publishes the original images (NTNDArray) of an `AdImageEncryptor`."""

    def _accepted(self, obj: Any) -> Any:
        return _require_image(obj)


def _only_smaller(name: str, value: float, before: float) -> None:
    if value > before:
        raise SettingsError(
            f"{name} can only be decreased while the stage runs; it is {before:g}. Restart the"
            " stage to allow more"
        )


def _require_image(obj: pva.PvObject) -> object:
    missing = [name for name in _IMAGE_FIELDS if not obj.hasField(name)]
    if missing:
        raise ObjectError(
            f"the object is not an NTNDArray image: it has no {', '.join(missing)}; for other"
            " objects there are DataEncryptor and DataDecryptor"
        )
    return obj
