from __future__ import annotations

import copy
import os
import pickle
import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pvapy_stream.crypto import envelope
from pvapy_stream.crypto.envelope import Opener, Sealer, read_header
from pvapy_stream.crypto.keys import make_key, public_key
from pvapy_stream.errors import CryptoError
from tests.crypto.keyring import key, opener, sealer
from tests.support import rounds

FIXED = 87  # bytes of the header before stream and wrapped key
WRAPPED = 256


def refused(check: str, opened: Opener, data: bytes | bytearray) -> None:
    with pytest.raises(CryptoError) as caught:
        opened.open(data)
    assert caught.value.check == check, str(caught.value)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.binary(max_size=100), max_size=4), st.integers(-(2**63), 2**63 - 1))
def test_what_is_opened_is_what_was_sealed(parts: list[bytes], number: int) -> None:
    sealed = sealer().seal(number, *parts)
    found, payload = opener().open(sealed)
    assert (found, bytes(payload)) == (number, b"".join(parts))
    assert payload.readonly


@pytest.mark.parametrize("kind", ["signing", "encryption"])
def test_both_types_of_signing_key(kind: str) -> None:
    signing = key(kind, 1)
    made = sealer(signing=signing)
    opened = opener("s", signing)
    for number in range(3):
        assert opened.open(made.seal(number, b"data"))[0] == number


def test_all_single_bit_mutations_are_refused() -> None:
    """Every single bit of an envelope: header, stream, wrapped key, body, tag, signature."""
    size = rounds(50)
    sealed = sealer().seal(7, os.urandom(size))
    opened = opener()
    checks: dict[str, int] = {}
    for bit in range(len(sealed) * 8):
        sealed[bit // 8] ^= 1 << bit % 8
        try:
            opened.open(sealed)
        except CryptoError as error:
            checks[error.check] = checks.get(error.check, 0) + 1
        else:
            pytest.fail(f"bit {bit} was changed, and the object opened")
        sealed[bit // 8] ^= 1 << bit % 8
    assert sum(checks.values()) == len(sealed) * 8
    assert set(checks) == {"format", "sender", "signature", "content"}
    # All of the body is guarded by the tag, all the rest by the signature or before.
    assert checks["content"] == size * 8
    assert opened.open(sealed)[0] == 7


def test_mutations_of_envelopes_signed_with_rsa_are_refused() -> None:
    signing = key("encryption", 1)
    sealed = sealer(signing=signing).seal(7, os.urandom(64))
    opened = opener("s", signing)
    rng = random.Random(5)
    for bit in rng.sample(range(len(sealed) * 8), 500):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CryptoError):
            opened.open(changed)
    assert opened.open(sealed)[0] == 7


def test_truncated_and_extended_objects_are_refused() -> None:
    sealed = sealer().seal(7, b"payload")
    opened = opener()
    for length in range(len(sealed)):
        refused("format", opened, sealed[:length])
    refused("format", opened, sealed + b"\0")
    refused("format", opened, b"")
    opened.open(sealed)


@settings(max_examples=rounds(100), deadline=None)
@given(st.binary(max_size=600), st.booleans())
def test_bytes_that_are_no_object_are_refused(data: bytes, begins_well: bool) -> None:
    with pytest.raises(CryptoError):
        opener().open(b"PVSE\x01" + data if begins_well else data)


def test_a_header_on_the_body_of_another_object_is_refused() -> None:
    made = sealer()
    one, two = made.seal(1, b"a" * 50), made.seal(2, b"b" * 50)
    at_body, at_tag, at_signature = FIXED + 1 + WRAPPED, len(one) - 80, len(one) - 64
    opened = opener()
    # The tag goes with the header it is signed with, or with the body it was made over.
    refused("content", opened, one[:at_body] + two[at_body:at_tag] + one[at_tag:])
    refused("signature", opened, one[:at_body] + two[at_body:at_signature] + one[at_signature:])
    refused("signature", opened, one[:at_body] + two[at_body:])


@pytest.mark.parametrize(
    ("begin", "end"),
    [
        (11, 19),
        (19, 27),
        (27, 43),
        (43, 51),
        (51, 59),
        (59, 67),
        (75, 79),
        (75, 87),
        (88, 88 + 256),
    ],
    ids=["sender", "recipient", "session", "sequence", "id", "time", "salt", "nonce", "key"],
)
def test_a_field_of_another_object_is_refused(begin: int, end: int) -> None:
    one = sealer().seal(1, b"a" * 50)
    other_sender = Sealer(public_key(key("encryption", 1)), key("signing", 1), "t")
    other_sender.seal(1, b"")
    two = other_sender.seal(2, b"b" * 50)
    changed = bytearray(one)
    changed[begin:end] = two[begin:end]
    assert changed != one
    with pytest.raises(CryptoError) as caught:
        opener("s", key("signing"), key("signing", 1)).open(changed)
    assert caught.value.check in ("signature", "format")


def test_other_stream_recipient_and_sender() -> None:
    sealed = sealer("s").seal(1, b"data")
    refused("stream", opener("t"), sealed)
    refused("sender", opener("s", key("signing", 1)), sealed)
    refused("recipient", opener("s", private=key("encryption", 1)), sealed)
    # A key under the id of another does not help.
    cheat = Opener(key("encryption"), {sealer().sender_id: public_key(key("signing", 1))}, "s")
    refused("signature", cheat, sealed)


def test_a_signed_object_with_a_wrapped_key_of_another_session_is_refused() -> None:
    """A sender of good standing that mixes its own parts up is refused too."""
    made, other = sealer(), sealer()
    made._wrapped = other._wrapped
    refused("key", opener(), made.seal(1, b"data"))
    made._key = other._key
    refused("key", opener(), made.seal(2, b"data"))


def test_a_replayed_object_is_refused_and_gaps_are_not() -> None:
    made = sealer()
    sealed = [made.seal(number, b"data") for number in range(10)]
    opened = opener()
    for number in (0, 1, 4, 9):
        assert opened.open(sealed[number])[0] == number
    for number in range(10):
        refused("replay", opened, sealed[number])
    # An object that is refused is not remembered: the true one may still come.
    changed = made.seal(10, b"data")
    changed[-82] ^= 1
    refused("content", opened, changed)
    changed[-82] ^= 1
    assert opened.open(changed)[0] == 10


def test_a_receiver_that_joins_late_opens_at_once() -> None:
    made = sealer()
    late = [made.seal(number, b"data") for number in range(100)][99]
    assert opener().open(late)[0] == 99


def test_several_senders_and_sessions_at_once() -> None:
    sealers = [sealer(), sealer(), sealer(signing=key("signing", 1))]
    opened = opener("s", key("signing"), key("signing", 1))
    for number in range(5):
        for made in sealers:
            assert opened.open(made.seal(number, b"data"))[0] == number


def test_sessions_are_renewed_and_nonces_never_repeat() -> None:
    made = sealer(renew_after=3)
    opened = opener()
    seen = set()
    sessions = set()
    for number in range(10):
        sealed = made.seal(number, b"data")
        header = read_header(memoryview(sealed))
        seen.add((header.wrapped, header.nonce))
        sessions.add(header.session)
        assert opened.open(sealed)[0] == number
    assert len(seen) == 10
    assert len(sessions) == 4


def test_an_error_while_sealing_does_not_bring_a_nonce_back() -> None:
    made = sealer()
    first = read_header(memoryview(made.seal(1, b"data")))
    with pytest.raises(CryptoError, match="more than 64 bits"):
        made.seal(2**63, b"data")
    assert read_header(memoryview(made.seal(2, b"data"))).sequence == first.sequence + 2


def test_a_sealer_cannot_be_copied_and_begins_anew_in_another_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = sealer()
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="nonce twice"):
            attempt(made)
    before = read_header(memoryview(made.seal(1, b"data")))
    monkeypatch.setattr(envelope.os, "getpid", lambda: -1)
    after = read_header(memoryview(made.seal(1, b"data")))
    assert after.session != before.session
    assert after.wrapped != before.wrapped


def test_an_old_object_is_refused_but_can_be_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = sealer().seal(1, b"data")
    now = envelope.time.time_ns()
    for offset in (400, -400):
        monkeypatch.setattr(envelope.time, "time_ns", lambda offset=offset: now + offset * 10**9)
        refused("age", opener(), sealed)
        assert bytes(opener().peek(sealed)[1]) == b"data"
        assert opener(max_age=0).open(sealed)[0] == 1
        assert opener(max_age=500).open(sealed)[0] == 1


def test_looking_does_not_use_an_object_up() -> None:
    sealed = sealer().seal(1, b"data")
    opened = opener()
    for _ in range(2):
        assert opened.peek(sealed)[0] == 1
    opened.open(sealed)
    sealed[-1] ^= 1
    with pytest.raises(CryptoError):
        opened.peek(sealed)


def test_keys_that_do_not_serve() -> None:
    with pytest.raises(CryptoError, match="needs RSA"):
        Sealer(public_key(key("signing")), key("signing"), "s")
    with pytest.raises(CryptoError, match="sign with the private one"):
        sealer(signing=public_key(key("signing")))
    with pytest.raises(CryptoError, match="open with the private one"):
        opener(private=public_key(key("encryption")))
    with pytest.raises(CryptoError, match="1024 bits, which can be broken"):
        sealer(signing=make_key("encryption", 1024))
    for name in ("", "x" * 256):
        with pytest.raises(CryptoError, match="1 to 255 bytes"):
            sealer(name)


def test_another_version_says_so() -> None:
    sealed = sealer().seal(1, b"data")
    sealed[4] = 2
    with pytest.raises(CryptoError, match="same pvapy_stream on both sides"):
        opener().open(sealed)


def test_lengths_beyond_the_limits_are_refused_before_anything_is_made_of_them() -> None:
    sealed = sealer().seal(1, b"data")
    changed = bytearray(sealed)
    struct.pack_into(">Q", changed, 67, 2**63)
    refused("format", opener(), changed)
