"""Keys for tests, made once a run: RSA keys take a while."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pvapy_stream.crypto.envelope import Opener, Sealer
from pvapy_stream.crypto.keys import Key, Kind, key_id, make_key, public_key, write_pair


@cache
def key(kind: Kind, number: int = 0) -> Key:
    """A private key; another number gives another one."""
    return make_key(kind, 2048)


def sealer(stream: str = "s", signing: Key | None = None, **options: int) -> Sealer:
    return Sealer(public_key(key("encryption")), signing or key("signing"), stream, **options)


def opener(stream: str = "s", *senders: Key, private: Key | None = None, **options) -> Opener:
    accepted = {key_id(one): public_key(one) for one in senders or (key("signing"),)}
    return Opener(private or key("encryption"), accepted, stream, **options)


def write_keys(folder: Path) -> dict[str, dict[str, str]]:
    """Write unprotected pairs; arguments of encryptor and decryptor."""
    for name, kind in (("archive", "encryption"), ("beamline", "signing")):
        write_pair(key(kind), name, folder, None)
    return {
        "encrypt": {
            "stream": "s",
            "recipientPublicKey": str(folder / "archive.pub.pem"),
            "signingPrivateKey": str(folder / "beamline.pem"),
        },
        "decrypt": {
            "stream": "s",
            "decryptionPrivateKey": str(folder / "archive.pem"),
            "senderPublicKeys": str(folder / "beamline.pub.pem"),
        },
    }
