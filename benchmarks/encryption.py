"""Encrypting and decrypting images, in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rsa
from pvapy.hpc.adImageDataDecryptor import AdImageDataDecryptor
from pvapy.hpc.adImageDataEncryptor import AdImageDataEncryptor

from benchmarks.table import Row
from pvapy_stream.crypto.envelope import Opener, Sealer
from pvapy_stream.crypto.keys import key_id, make_key, public_key, write_pair
from pvapy_stream.processors.encryption import AdImageDecryptor, AdImageEncryptor
from pvapy_stream.testing import image_object

_BITS = 2048  # RSA, both sides
_OBJECTS = 100  # for our decryptor, which takes each object once
_THEIRS = 10


def run(quick: bool) -> list[Row]:
    """Milliseconds per 1024x1024 uint8 image; pvapy signs only when told, ours always."""
    image = np.random.default_rng(1).integers(0, 256, (1024, 1024), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        sides = _Sides(Path(folder), image_object(image, 1))
        found = _times(sides.calls, 3 if quick else 7)
    rows = []
    for what in ("encrypt", "decrypt"):
        ours = found[f"ours {what}"]
        for sign, name in ((True, "signed"), (False, "pvapy's not signed")):
            pvapy = found[f"pvapy {what} {sign}"]
            rows.append(
                Row(
                    f"{what} an image, 1024x1024 uint8, {name}",
                    "ms",
                    ours,
                    pvapy,
                    "ratio <= 0.2" if what == "encrypt" else "",
                    ours <= 0.2 * pvapy if what == "encrypt" else None,
                )
            )
    rows.append(Row("… seal 1 MiB alone", "ms", found["seal"], None))
    rows.append(Row("… open 1 MiB alone", "ms", found["open"], None))
    return rows


class _Sides:
    """Processors of both sides with their keys, and what to call of them."""

    def __init__(self, folder: Path, obj: Any) -> None:
        recipient, sender = make_key("encryption", _BITS), make_key("signing")
        write_pair(recipient, "recipient", folder, None)
        write_pair(sender, "sender", folder, None)
        names = {"stream": "s", "objectIdField": "uniqueId"}
        encryptor = AdImageEncryptor(
            {
                **names,
                "recipientPublicKey": str(folder / "recipient.pub.pem"),
                "signingPrivateKey": str(folder / "sender.pem"),
            }
        )
        decryptor = AdImageDecryptor(
            {
                **names,
                "decryptionPrivateKey": str(folder / "recipient.pem"),
                "senderPublicKeys": str(folder / "sender.pub.pem"),
                "reorderWindow": 1000,
            }
        )
        sealer = Sealer(public_key(recipient), sender, "s")
        opener = Opener(recipient, {key_id(sender): public_key(sender)}, "s")
        payload = np.random.default_rng(1).bytes(2**20)
        sealed = sealer.seal(1, payload)
        ready: list[Any] = []

        def decrypt() -> None:
            # Each object is taken once: new ones are made outside of what is timed.
            decryptor.process(ready.pop())

        self.calls: dict[str, tuple[Callable[[], Any], int, Callable[[], Any]]] = {
            "ours encrypt": (lambda: encryptor.process(obj), _OBJECTS, _nothing),
            "ours decrypt": (
                decrypt,
                _OBJECTS,
                lambda: ready.extend(encryptor.process(obj) for _ in range(_OBJECTS)),
            ),
            "seal": (lambda: sealer.seal(1, payload), _OBJECTS, _nothing),
            "open": (lambda: opener.peek(sealed), _OBJECTS, _nothing),
        }
        private = rsa.newkeys(_BITS)[1]
        file = folder / "pvapy.pem"
        file.write_bytes(private.save_pkcs1())
        for sign in (True, False):
            theirs = {"privateKeyFilePath": str(file), "sign": sign, "verify": sign}
            self._add_theirs(theirs, sign, obj)

    def _add_theirs(self, config: dict[str, Any], sign: bool, obj: Any) -> None:
        encryptor, decryptor = AdImageDataEncryptor(config), AdImageDataDecryptor(config)
        encryptor.objectIdField, decryptor.objectIdField = "uniqueId", "objectId"
        sealed = encryptor.process(obj)
        self.calls[f"pvapy encrypt {sign}"] = (lambda: encryptor.process(obj), _THEIRS, _nothing)
        self.calls[f"pvapy decrypt {sign}"] = (lambda: decryptor.process(sealed), _THEIRS, _nothing)


def _nothing() -> None:
    pass


def _times(
    calls: dict[str, tuple[Callable[[], Any], int, Callable[[], Any]]], n: int
) -> dict[str, float]:
    """Milliseconds per call: medians of n, in turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(n + 1):
        for name, (call, repeats, prepare) in calls.items():
            prepare()
            start = time.perf_counter()
            for _ in range(repeats):
                call()
            if turn:  # the first is for warming up
                found[name].append((time.perf_counter() - start) / repeats * 1e3)
    return {name: median(values) for name, values in found.items()}
