"""Envelopes: bytes sealed for one recipient and signed by one sender, opened or refused.

An envelope is, in this order, all numbers big-endian::

    magic PVSE · version · lengths of stream, wrapped key, signature · key ids of sender and
    recipient · session id · sequence number · object id · time of sealing · length of the payload
    · nonce · stream · wrapped key                     = the header, the associated data of AES-GCM
    ciphertext · tag · signature over header and tag

`docs/encryption.md` says why this covers everything.
"""

from __future__ import annotations

import os
import struct
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from Crypto.Cipher import AES, PKCS1_OAEP
from Crypto.Hash import SHA256
from Crypto.PublicKey.RSA import RsaKey
from Crypto.Signature import eddsa, pss

from pvapy_stream.crypto.keys import Key, check_kind, key_id
from pvapy_stream.crypto.replay import ReplayGuard
from pvapy_stream.errors import CryptoError

Buffer = bytes | bytearray | memoryview

CHECKS = ("format", "sender", "signature", "stream", "recipient", "age", "replay", "key", "content")

MAX_PAYLOAD = 2**32  # bytes; AES-GCM itself allows sixteen times that
RENEW_AFTER = 2**20  # objects of a session
MAX_AGE = 300.0  # s

_MAGIC = b"PVSE"
_VERSION = 1
_FIXED = struct.Struct(">4sBHHH8s8s16sQqqQ12s")
_NONCE = struct.Struct(">4sQ")  # salt of the session, sequence number
_TAG = 16
_KEY = 32
_OAEP_LABEL = b"pvapy-stream session key "
_MAX_STREAM = 255  # bytes
_MAX_KEYS = 256  # unwrapped session keys that are kept


class Header(NamedTuple):
    """What an envelope says of itself."""

    sender: bytes
    recipient: bytes
    session: bytes
    sequence: int
    object_id: int
    sealed_ns: int
    nonce: bytes
    stream: bytes
    wrapped: bytes
    n_header: int
    n_payload: int


class Sealer:
    """Seals payloads for a recipient.

    The session key is made here, wrapped once, and replaced after `renew_after` objects. Not
    locked: one sealer a thread. A sealer cannot be copied, for two would use a nonce twice; after a
    fork the child begins a session of its own.

    Args:
        recipient_public_key: RSA.
        signing_private_key: Ed25519 or RSA.
        stream: name that the opener must have too.
        renew_after: objects a session has.

    Raises:
        CryptoError: a key that does not serve, or a name that is too long.
    """

    def __init__(
        self,
        recipient_public_key: Key,
        signing_private_key: Key,
        stream: str,
        *,
        renew_after: int = RENEW_AFTER,
    ) -> None:
        check_kind(recipient_public_key, "encryption", "the recipient's key")
        check_kind(signing_private_key, "signing", "the signing key")
        if not signing_private_key.has_private():
            raise CryptoError("the signing key is a public key; sign with the private one")
        self._recipient = recipient_public_key.public_key()
        self._sign, self._n_signature = _signer(signing_private_key)
        self._stream = _stream_name(stream)
        self._renew_after = renew_after
        self.recipient_id = key_id(recipient_public_key)
        self.sender_id = key_id(signing_private_key)
        self._begin_session()

    def seal(self, object_id: int, *payload: Buffer) -> bytearray:
        """An envelope of the payload; its parts are put one behind the other.

        Raises:
            CryptoError: the id has more than 64 bits, or the payload more than `MAX_PAYLOAD` bytes.
        """
        if self._sequence >= self._renew_after or os.getpid() != self._pid:
            self._begin_session()
        sequence = self._sequence
        # Counted before it is used: an error on the way must not bring a nonce back.
        self._sequence += 1
        parts = [memoryview(part).cast("B") for part in payload if len(part)]
        n_payload = sum(map(len, parts))
        nonce = _NONCE.pack(self._salt, sequence)
        header = self._header(object_id, sequence, n_payload, nonce)
        at = len(header)
        sealed = bytearray(at + n_payload + _TAG + self._n_signature)
        view = memoryview(sealed)
        view[:at] = header
        cipher = AES.new(self._key, AES.MODE_GCM, nonce=nonce)
        cipher.update(header)
        for part in parts:
            end = at + len(part)
            cipher.encrypt(part, output=view[at:end])
            at = end
        tag = cipher.digest()
        view[at : at + _TAG] = tag
        view[at + _TAG :] = self._sign(header + tag)
        return sealed

    def _header(self, object_id: int, sequence: int, n_payload: int, nonce: bytes) -> bytes:
        if not -(2**63) <= object_id < 2**63:
            raise CryptoError(
                f"object id {object_id} has more than 64 bits; choose another id field"
            )
        if n_payload > MAX_PAYLOAD:
            raise CryptoError(f"object {object_id} has {n_payload} bytes, more than {MAX_PAYLOAD}")
        fixed = _FIXED.pack(
            _MAGIC,
            _VERSION,
            len(self._stream),
            len(self._wrapped),
            self._n_signature,
            self.sender_id,
            self.recipient_id,
            self._session,
            sequence,
            object_id,
            time.time_ns(),
            n_payload,
            nonce,
        )
        return fixed + self._stream + self._wrapped

    def _begin_session(self) -> None:
        self._pid = os.getpid()
        self._session, self._salt, self._key = os.urandom(16), os.urandom(4), os.urandom(_KEY)
        self._sequence = 0
        self._wrapped = _oaep(self._recipient, self._session).encrypt(self._key)

    def __reduce__(self) -> Any:
        raise TypeError("a sealer cannot be copied: two of them would use a nonce twice")


class Opener:
    """Opens envelopes, or refuses them.

    Not locked: one opener a thread.

    Args:
        recipient_private_key: RSA.
        senders: public keys of those who may send, by key id (`keys.key_id`).
        stream: name that the sealer must have too.
        guard: remembers what came; give it on to a new opener for the same stream.
        max_age: s since sealing beyond which an object is refused; 0 for no limit.

    Raises:
        CryptoError: a key that does not serve.
    """

    def __init__(
        self,
        recipient_private_key: Key,
        senders: Mapping[bytes, Key],
        stream: str,
        *,
        guard: ReplayGuard | None = None,
        max_age: float = MAX_AGE,
    ) -> None:
        check_kind(recipient_private_key, "encryption", "the recipient's key")
        if not recipient_private_key.has_private():
            raise CryptoError("the recipient's key is a public key; open with the private one")
        self._private = recipient_private_key
        self.recipient_id = key_id(recipient_private_key)
        self._verifiers: dict[bytes, tuple[Callable[[bytes, bytes], None], int]] = {}
        for identifier, key in senders.items():
            check_kind(key, "signing", "the sender's key")
            self._verifiers[identifier] = _verifier(key)
        self._stream = _stream_name(stream)
        self._guard = guard or ReplayGuard()
        self._max_age = max_age
        self._keys: OrderedDict[tuple[bytes, bytes], bytes] = OrderedDict()

    def open(self, sealed: Buffer) -> tuple[int, memoryview]:
        """Object id and payload of an envelope that passed all checks.

        Raises:
            CryptoError: it is refused; `check` is the first check that failed, one of `CHECKS`.
        """
        data = memoryview(sealed).cast("B")
        header = self._authentic(data)
        self._check_age(header)
        session = header.sender, header.session
        self._guard.check(session, header.sequence, header.sealed_ns)
        payload = self._payload(header, data)
        self._guard.record(session, header.sequence, header.sealed_ns)
        return header.object_id, payload

    def peek(self, sealed: Buffer) -> tuple[int, memoryview]:
        """As `open`, of an object that may be old and is not remembered: to look at, not to use.

        Raises:
            CryptoError: it is refused.
        """
        data = memoryview(sealed).cast("B")
        header = self._authentic(data)
        return header.object_id, self._payload(header, data)

    def _authentic(self, data: memoryview) -> Header:
        """The header of what a known sender signed for us; nothing else of it was used before."""
        header = read_header(data)
        verifier = self._verifiers.get(header.sender)
        if verifier is None:
            raise CryptoError(
                f"the sender's key {header.sender.hex()} is not one of the accepted senders"
                f" ({', '.join(known.hex() for known in self._verifiers) or 'none'})",
                "sender",
            )
        verify, n_signature = verifier
        at_signature = header.n_header + header.n_payload + _TAG
        signature = bytes(data[at_signature:])
        if len(signature) != n_signature:
            raise CryptoError("the signature has another length than the sender's key", "format")
        tag = data[at_signature - _TAG : at_signature]
        try:
            verify(bytes(data[: header.n_header]) + bytes(tag), signature)
        except ValueError as error:
            raise CryptoError(
                f"the signature of object {header.object_id} is wrong: the object was changed, or"
                " is not from the stated sender",
                "signature",
            ) from error
        if header.stream != self._stream:
            raise CryptoError(
                f"the object is of stream {header.stream.decode('utf-8', 'replace')!r}, not"
                f" {self._stream.decode()!r}",
                "stream",
            )
        if header.recipient != self.recipient_id:
            raise CryptoError(
                f"the object is encrypted for key {header.recipient.hex()}, but this key is"
                f" {self.recipient_id.hex()}",
                "recipient",
            )
        return header

    def _check_age(self, header: Header) -> None:
        age = (time.time_ns() - header.sealed_ns) / 1e9
        if self._max_age and abs(age) > self._max_age:
            raise CryptoError(
                f"object {header.object_id} was sealed {age:.0f} s ago (maxAge {self._max_age:.0f}"
                " s): it is a replay, was delayed too long, or a clock is wrong",
                "age",
            )

    def _payload(self, header: Header, data: memoryview) -> memoryview:
        begin, end = header.n_header, header.n_header + header.n_payload
        cipher = AES.new(self._session_key(header), AES.MODE_GCM, nonce=header.nonce)
        cipher.update(data[:begin])
        payload = bytearray(header.n_payload)
        if header.n_payload:
            cipher.decrypt(data[begin:end], output=payload)
        try:
            cipher.verify(data[end : end + _TAG])
        except ValueError as error:
            raise CryptoError(
                f"the content of object {header.object_id} was changed", "content"
            ) from error
        return memoryview(payload).toreadonly()

    def _session_key(self, header: Header) -> bytes:
        known = self._keys.get((header.session, header.wrapped))
        if known is not None:
            return known
        try:
            key = _oaep(self._private, header.session).decrypt(header.wrapped)
        except (ValueError, TypeError) as error:
            raise CryptoError("the session key cannot be unwrapped", "key") from error
        if len(key) != _KEY:
            raise CryptoError("the session key has another length than AES-256's", "key")
        self._keys[header.session, header.wrapped] = key
        if len(self._keys) > _MAX_KEYS:
            self._keys.popitem(last=False)
        return key


def read_header(data: memoryview) -> Header:
    """The header of an envelope as it is: it is not verified yet.

    Raises:
        CryptoError: it is no envelope, or has another length than it says.
    """
    if len(data) < _FIXED.size:
        raise CryptoError(f"{len(data)} bytes are not an encrypted object", "format")
    (
        magic, version, n_stream, n_wrapped, n_signature, sender, recipient, session, sequence,
        object_id, sealed_ns, n_payload, nonce,
    ) = _FIXED.unpack_from(data)  # fmt: skip
    if magic != _MAGIC:
        raise CryptoError("the bytes are not an encrypted object", "format")
    if version != _VERSION:
        raise CryptoError(
            f"the object has version {version} of the format, and this program reads version"
            f" {_VERSION}; use the same pvapy_stream on both sides",
            "format",
        )
    n_header = _FIXED.size + n_stream + n_wrapped
    length = n_header + n_payload + _TAG + n_signature
    if n_stream > _MAX_STREAM or n_payload > MAX_PAYLOAD or length != len(data):
        raise CryptoError(
            f"the encrypted object has {len(data)} bytes, not {length} as its header states",
            "format",
        )
    if nonce[4:] != sequence.to_bytes(8, "big"):
        raise CryptoError("nonce and sequence number do not match", "format")
    at_wrapped = _FIXED.size + n_stream
    return Header(
        sender,
        recipient,
        session,
        sequence,
        object_id,
        sealed_ns,
        nonce,
        bytes(data[_FIXED.size : at_wrapped]),
        bytes(data[at_wrapped:n_header]),
        n_header,
        n_payload,
    )


def _stream_name(stream: str) -> bytes:
    name = stream.encode()
    if not 0 < len(name) <= _MAX_STREAM:
        raise CryptoError(
            f"the name of a stream has 1 to {_MAX_STREAM} bytes in UTF-8, not {len(name)}"
        )
    return name


def _oaep(key: Any, session: bytes) -> Any:
    return PKCS1_OAEP.new(key, hashAlgo=SHA256, label=_OAEP_LABEL + session)


def _signer(key: Key) -> tuple[Callable[[bytes], bytes], int]:
    """A function that signs, and the length of signatures."""
    if isinstance(key, RsaKey):
        rsa = pss.new(key)
        return lambda message: rsa.sign(SHA256.new(message)), key.size_in_bytes()
    return eddsa.new(key, "rfc8032").sign, 64


def _verifier(key: Key) -> tuple[Callable[[bytes, bytes], None], int]:
    """A function that raises ValueError for a wrong signature, and the length of signatures."""
    if isinstance(key, RsaKey):
        rsa = pss.new(key.public_key())
        return lambda message, sign: rsa.verify(SHA256.new(message), sign), key.size_in_bytes()
    return eddsa.new(key.public_key(), "rfc8032").verify, 64
