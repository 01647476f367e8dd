from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pvaccess as pva
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.crypto.keys import Key, write_pair
from pvapy_stream.errors import CryptoError, SettingsError
from pvapy_stream.processors.encryption import (
    AdImageDecryptor,
    AdImageEncryptor,
    DataDecryptor,
    DataEncryptor,
)
from pvapy_stream.pva.structure import type_ids
from pvapy_stream.testing import image_object, run_processor
from tests.crypto.keyring import key, write_keys
from tests.support import Commands, Source, image, status, wait_until

POINT = {"id": pva.LONG, "x": pva.DOUBLE, "tags": [pva.STRING], "s": {"n": [pva.INT]}}


@pytest.fixture
def args(tmp_path: Path) -> dict[str, dict[str, str]]:
    return write_keys(tmp_path)


def points(*ids: int) -> list[Any]:
    return [
        pva.PvObject(POINT, {"id": n, "x": n / 3, "tags": ["a", "é"], "s": {"n": [n, n + 1]}})
        for n in ids
    ]


def encrypted(args: Any, objects: list[Any], **options: Any) -> list[Any]:
    result = run_processor(options.pop("with_", AdImageEncryptor), objects, args=args, **options)
    assert result.errors == {}
    assert result.stats == {"nEncrypted": len(objects)}
    return result.published


def assert_equal(one: Any, other: Any) -> None:
    assert list(one.getStructureDict().items()) == list(other.getStructureDict().items())
    np.testing.assert_equal(one.toDict(), other.toDict())
    assert type_ids(one) == type_ids(other)


def test_images_come_back_identical(args: Any) -> None:
    objects = [
        image_object(np.full((20, 30), n, np.uint16), n, time=100.5, temperature=1.5, note="é",
                     positions=np.arange(50.0))
        for n in range(1, 6)
    ]  # fmt: skip
    sealed = encrypted(args["encrypt"], objects)
    assert [obj["uniqueId"] for obj in sealed] == [1, 2, 3, 4, 5]
    assert type_ids(sealed[0])[0] == "pvapy_stream:Encrypted:1.0"
    for obj in sealed:
        assert obj["stream"] == "s"
        assert b"temperature" not in obj["encrypted"].tobytes()
    result = run_processor(AdImageDecryptor, sealed, args=args["decrypt"])
    assert result.errors == {}
    for before, after in zip(objects, result.published, strict=True):
        assert_equal(after, before)
    assert result.stats["nDecrypted"] == 5
    assert result.stats["nRefused"] == 0
    assert list(result.ledger.published) == [1, 2, 3, 4, 5]


def test_compressed_images_stay_compressed(args: Any) -> None:
    obj = image_object(np.zeros((40, 60), np.uint16), 3)
    obj["codec"] = pva.PvCodec("lz4", pva.PvInt(6))
    obj["value"] = {"ubyteValue": np.arange(250, dtype=np.uint8)}
    (sealed,) = encrypted(args["encrypt"], [obj])
    result = run_processor(AdImageDecryptor, [sealed], args=args["decrypt"])
    assert_equal(result.published[0], obj)


def test_objects_of_any_structure_by_their_own_id_field(args: Any) -> None:
    objects = points(7, 8, -9)
    sealed = encrypted(args["encrypt"], objects, with_=DataEncryptor, id_field="id")
    assert [obj["uniqueId"] for obj in sealed] == [7, 8, -9]
    result = run_processor(DataDecryptor, sealed, args=args["decrypt"])
    assert result.errors == {}
    for before, after in zip(objects, result.published, strict=True):
        assert_equal(after, before)


def test_image_processors_take_images_only(args: Any) -> None:
    result = run_processor(AdImageEncryptor, points(1), args=args["encrypt"], id_field="id")
    assert "it has no value, dimension" in result.last_error
    assert result.published == []
    sealed = encrypted(args["encrypt"], points(1), with_=DataEncryptor, id_field="id")
    result = run_processor(AdImageDecryptor, sealed, args=args["decrypt"])
    assert "the object is not an NTNDArray image" in result.last_error
    assert result.stats["nRefusedObject"] == 1
    assert result.published == []


def test_mutations_anywhere_are_refused_counted_and_not_published(args: Any) -> None:
    good = encrypted(args["encrypt"], [image_object(id=n) for n in range(1, 4)])
    rng = random.Random(7)
    stream = [good[0]]
    n_bits = len(good[1]["encrypted"]) * 8
    for bit in rng.sample(range(n_bits), 300):
        changed = good[1].copy()
        data = good[1]["encrypted"].copy()
        data[bit // 8] ^= 1 << bit % 8
        changed["encrypted"] = data
        stream.append(changed)
    for field, value in (
        ("uniqueId", 3), ("stream", "t"), ("keyId", "00"), ("senderKeyId", "ff" * 8),
    ):  # fmt: skip
        changed = good[1].copy()
        changed[field] = value
        stream.append(changed)
    # The true objects after them, one twice.
    stream += [good[1], good[2], good[1], good[0]]
    result = run_processor(AdImageDecryptor, stream, args=args["decrypt"])
    assert [obj["uniqueId"] for obj in result.published] == [1, 2, 3]
    assert result.errors == {"process: CryptoError": 306}
    stats = result.stats
    assert (stats["nDecrypted"], stats["nRefused"], stats["nRefusedReplay"]) == (3, 306, 2)
    by_check = {name: n for name, n in stats.items() if name.startswith("nRefused") and n}
    assert sum(by_check.values()) == 2 * 306
    assert stats["nRefusedField"] >= 4
    assert min(stats["nRefusedContent"], stats["nRefusedSignature"]) > 0


def test_a_forged_first_object_does_not_end_a_stream_of_images(args: Any) -> None:
    good = encrypted(args["encrypt"], [image_object(id=n) for n in (1, 2)])
    forged = good[0].copy()
    forged["encrypted"] = np.zeros(100, np.uint8)
    result = run_processor(AdImageDecryptor, [forged, *good], args=args["decrypt"])
    assert [obj["uniqueId"] for obj in result.published] == [1, 2]
    assert result.stats["nRefusedFormat"] == 1


def test_a_forged_first_object_does_not_end_other_streams(args: Any) -> None:
    good = encrypted(args["encrypt"], points(1, 2), with_=DataEncryptor, id_field="id")
    forged = good[0].copy()
    forged["encrypted"] = np.zeros(100, np.uint8)
    result = run_processor(DataDecryptor, [forged, *good], args=args["decrypt"])
    assert result.errors["opening the output"] == 1
    assert [obj["id"] for obj in result.published] == [1, 2]
    assert result.stats["nRefusedFormat"] == 1


def test_objects_that_are_not_encrypted_are_refused(args: Any) -> None:
    result = run_processor(AdImageDecryptor, [image_object(id=1)], args=args["decrypt"])
    assert "is the input channel the output of an encrypting consumer?" in result.last_error
    assert result.stats["nRefusedFormat"] == 1


def test_the_first_object_may_be_processed_too(args: Any) -> None:
    """It is looked at for its structure and then processed: that is no replay."""
    sealed = encrypted(args["encrypt"], [image_object(id=1)])
    assert run_processor(AdImageDecryptor, sealed, args=args["decrypt"]).stats["nDecrypted"] == 1


def test_keys_are_changed_by_configure_and_replays_stay_refused(args: Any, tmp_path: Path) -> None:
    write_pair(key("signing", 1), "second", tmp_path, None)
    second = {**args["encrypt"], "signingPrivateKey": str(tmp_path / "second.pem")}
    one = encrypted(args["encrypt"], [image_object(id=1)])
    two = encrypted(second, [image_object(id=2)])
    both = f"{args['decrypt']['senderPublicKeys']}, {tmp_path / 'second.pub.pem'}"
    decryptor = AdImageDecryptor(args["decrypt"])
    result = run_processor(decryptor, one + two)
    assert result.stats["nRefusedSender"] == 1
    result = run_processor(decryptor, one + two, configure={"senderPublicKeys": both, "other": 1})
    assert result.stats["nDecrypted"] == 2
    assert result.stats["nRefusedReplay"] == 1
    with pytest.raises(CryptoError, match="cannot be read"):
        decryptor.configure({"senderPublicKeys": "/no/such/file"})
    result = run_processor(decryptor, encrypted(second, [image_object(id=3)]))
    assert [obj["uniqueId"] for obj in result.published] == [3]


def test_a_window_lets_late_objects_in_once(args: Any) -> None:
    sealed = encrypted(args["encrypt"], [image_object(id=n) for n in range(1, 6)])
    order = [sealed[n] for n in (1, 0, 4, 3, 2, 2)]
    windowed = {**args["decrypt"], "reorderWindow": 2}
    result = run_processor(AdImageDecryptor, order, args=windowed)
    assert [obj["uniqueId"] for obj in result.published] == [2, 1, 5, 4, 3]
    assert result.stats["nRefusedReplay"] == 1


def test_configure_can_only_tighten_the_protection_against_replays(args: Any) -> None:
    sealed = encrypted(args["encrypt"], [image_object(id=n) for n in range(1, 11)])
    decryptor = AdImageDecryptor({**args["decrypt"], "reorderWindow": 4, "maxAge": 100})
    assert run_processor(decryptor, sealed[:6]).stats["nDecrypted"] == 6
    for change, message in (
        ({"reorderWindow": 5}, "reorderWindow can only be decreased.* 4"),
        ({"maxAge": 101}, "maxAge can only be decreased.* 100"),
        ({"maxAge": 0}, "maxAge can only be decreased"),
    ):
        with pytest.raises(SettingsError, match=message):
            decryptor.configure(change)
    # Neither a smaller window nor the same lets in again what came.
    for count, window in enumerate((4, 3, 0), 1):
        decryptor.configure({"reorderWindow": window, "maxAge": 50 + window})
        result = run_processor(decryptor, sealed[:6])
        assert result.stats["nRefusedReplay"] == 6 * count
        assert result.published == []
    with pytest.raises(SettingsError, match="reorderWindow can only be decreased"):
        decryptor.configure({"reorderWindow": 4})
    result = run_processor(decryptor, [sealed[8], sealed[7], sealed[9]])
    assert [obj["uniqueId"] for obj in result.published] == [9, 10]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"stream": ""}, SettingsError, "AdImageDecryptor needs stream"),
        ({"stream": 3}, SettingsError, "AdImageDecryptor needs stream"),
        ({"decryptionPrivateKey": None}, SettingsError, "needs decryptionPrivateKey"),
        ({"senderPublicKeys": []}, SettingsError, "needs senderPublicKeys"),
        ({"senderPublicKeys": [3]}, SettingsError, "needs senderPublicKeys"),
        ({"maxAge": "long"}, SettingsError, "maxAge is 'long'; it must be a number"),
        ({"reorderWindow": -1}, SettingsError, "reorderWindow is -1"),
        ({"reorderWindow": float("inf")}, SettingsError, "reorderWindow is inf"),
        ({"decryptionPrivateKey": "archive.pub.pem"}, CryptoError, "where the private one"),
        ({"decryptionPrivateKey": "beamline.pem"}, CryptoError, "encryption needs RSA"),
        ({"senderPublicKeys": "beamline.pem"}, CryptoError, "where a public one"),
        ({"decryptionPrivateKey": "protected.pem"}, CryptoError, "the passphrase is wrong"),
        (
            {"decryptionPrivateKey": "protected.pem", "passphraseEnv": "NO_SUCH_VARIABLE"},
            CryptoError,
            "NO_SUCH_VARIABLE",
        ),
    ],
)
def test_wrong_arguments_say_which(
    args: Any, tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    (tmp_path / "wrong").write_text("falsch")
    if "protected.pem" in change.values():
        write_pair(key("encryption"), "protected", tmp_path, "geheim")
        change = {"passphraseFile": str(tmp_path / "wrong"), **change}
        if "passphraseEnv" in change:
            change["passphraseFile"] = ""
    change = {
        name: str(tmp_path / value) if isinstance(value, str) and value.endswith(".pem") else value
        for name, value in change.items()
    }
    with pytest.raises(error, match=message):
        AdImageDecryptor({**args["decrypt"], **change})


def test_an_encryptor_needs_its_arguments(args: Any) -> None:
    with pytest.raises(SettingsError, match="DataEncryptor needs stream"):
        DataEncryptor()
    for name in ("recipientPublicKey", "signingPrivateKey"):
        given = {**args["encrypt"]}
        del given[name]
        with pytest.raises(SettingsError, match=f"needs {name}"):
            AdImageEncryptor(given)


def start(commands: Commands, name: str, args: Any, source: str, out: str, *more: object) -> Any:
    return commands(
        "consumer", "-ic", source, "-oc", out, "-sc", f"{out}:status", "-cc", f"{out}:control",
        "-pc", f"pvapy_stream.processors.{name}", "-pa", json.dumps(args), "-sqs", "500", *more,
    )  # fmt: skip


def protected(folder: Path, one: Key, name: str) -> dict[str, str]:
    (folder / f"{name}.secret").write_text("geheim")
    write_pair(one, name, folder, "geheim")
    return {"passphraseFile": str(folder / f"{name}.secret")}


def test_a_stream_through_two_processes(
    prefix: str, source: Source, commands: Commands, args: Any, tmp_path: Path
) -> None:
    """Started in the wrong order; keys with passphrases; every image arrives as it was sent."""
    secret = protected(tmp_path, key("encryption"), "locked")
    decrypt = {**args["decrypt"], **secret, "decryptionPrivateKey": str(tmp_path / "locked.pem")}
    middle, end = f"{prefix}encrypted", f"{prefix}plain"
    ledger = tmp_path / "ledger.json"
    received: dict[int, Any] = {}
    decryptor = start(commands, "AdImageDecryptor", decrypt, middle, end, "--ledger", ledger)
    wait_until(lambda: status(f"{end}:status").get("state") == "waiting")
    encryptor = start(commands, "AdImageEncryptor", args["encrypt"], source.channel, middle)
    wait_until(lambda: status(f"{end}:status")["receiverStats"]["nReceived"] >= 1)
    monitor = pva.Channel(end)
    monitor.subscribe("test", lambda obj: received.setdefault(obj["uniqueId"], obj.copy()))
    monitor.startMonitor("record[queueSize=500]field()")
    wait_until(lambda: received)
    source.publish(range(1, 101), side=32)
    wait_until(lambda: status(f"{end}:status")["processorStats"]["nProcessed"] == 100)
    wait_until(lambda: len(received) >= 101)
    monitor.stopMonitor()
    for number in range(1, 101):
        pixels = received[number]["value"][0]["ushortValue"]
        assert np.array_equal(pixels.reshape(32, 32), image(number, 32, 32))
    stats = status(f"{end}:status")["userStats"]
    assert (stats["nDecrypted"], stats["nRefused"]) == (100, 0)
    for program in (encryptor, decryptor):
        program.signal()
        assert program.wait() == 0, program.text
    (account,) = read_ledgers(ledger)
    assert str(account.processed) == str(account.published) == "1-100"


def test_forged_objects_on_the_channel_are_counted_logged_and_not_published(
    prefix: str, commands: Commands, args: Any
) -> None:
    sealed = encrypted(args["encrypt"], [image_object(image(n), n) for n in range(4)])
    forged = sealed[2].copy()
    data = sealed[2]["encrypted"].copy()
    data[-100] ^= 1
    forged["encrypted"] = data
    source = Source(f"{prefix}encrypted", sealed[0])
    end = f"{prefix}plain"
    try:
        decryptor = start(commands, "AdImageDecryptor", args["decrypt"], source.channel, end)
        wait_until(lambda: status(f"{end}:status").get("receiverStats", {}).get("nReceived") == 1)
        for number, obj in enumerate((sealed[1], forged, sealed[1], sealed[3]), 2):
            source.put(obj)
            wait_until(
                lambda number=number: (
                    status(f"{end}:status")["receiverStats"]["nReceived"] == number
                )
            )
        wait_until(lambda: status(f"{end}:status")["userStats"]["nRefused"] == 2)
        shown = status(f"{end}:status")
        assert shown["processorStats"]["nErrors"] == 2
        assert shown["userStats"]["nDecrypted"] == 2
        assert shown["publisherStats"]["nPublished"] == 2
        decryptor.signal()
        assert decryptor.wait() == 1
        assert "object 2 failed, process: CryptoError" in decryptor.text
        assert "was changed" in decryptor.text
    finally:
        source.close()


def test_an_unreadable_key_ends_the_consumer_with_a_message(
    prefix: str, commands: Commands, args: Any
) -> None:
    wrong = {**args["encrypt"], "recipientPublicKey": args["encrypt"]["signingPrivateKey"]}
    program = start(commands, "AdImageEncryptor", wrong, f"{prefix}image", f"{prefix}out")
    assert program.wait() != 0
    assert "is a private key where a public one is needed" in program.text
