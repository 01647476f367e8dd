"""The bsread simulator: what it sends, and the trouble it makes."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pvapy_stream.accounting.ledger import read_ledgers
from pvapy_stream.bsread.codec import ControlMessage, Decoder, Message
from pvapy_stream.bsread.simulator import BsreadSimulator, value_of
from pvapy_stream.bsread.sockets import BsreadInput
from pvapy_stream.errors import BsreadError, SettingsError
from pvapy_stream.settings import BsreadSimSettings, SimChannel
from tests.support import Commands


def messages(**settings: Any) -> tuple[BsreadSimulator, list[Message | ControlMessage | None]]:
    """What a simulator sends; None for what cannot be read."""
    simulator = BsreadSimulator(
        BsreadSimSettings.of(address="tcp://127.0.0.1:0", send_timeout=10, rate=0, **settings)
    )
    source, decoder = BsreadInput(simulator.address, hwm=10_000), Decoder()
    thread = threading.Thread(target=simulator.run, args=(threading.Event(),))
    thread.start()
    got: list[Message | ControlMessage | None] = []
    while source.socket.poll(1000 if thread.is_alive() or not got else 200):
        while (parts := source.receive()) is not None:
            try:
                got.append(decoder.decode(parts))
            except BsreadError:
                got.append(None)
    thread.join(10)
    source.close()
    return simulator, got


def test_values_tell_the_pulse() -> None:
    channels = (
        "I=int16/big,S=string/every2+1,B=bool,F=float32/30x2/lz4,C=uint16/64x48/bitshuffle_lz4"
    )
    simulator, got = messages(
        n_messages=50, n_scalars=3, camera="32x16", channels=channels, first_pulse=-10, pulse_step=5
    )
    assert len(got) == simulator.sent == 50
    for index, message in enumerate(got):
        assert isinstance(message, Message)
        assert message.pulse_id == -10 + 5 * index
        assert len(message.channels) == 9
        for value in message.channels:
            assert value.present == (value.header.modulo == 1 or (message.pulse_id - 1) % 2 == 0)
            sent = value_of(value.header, message.pulse_id)
            assert not value.present or np.array_equal(
                value.decode(),
                np.asarray(sent).reshape(value.header.array_shape if value.header.dtype else ()),
            )
    cameras = {value.header.name: value.header.array_shape for value in message.channels}
    assert (cameras["SIM:CAMERA"], cameras["C"]) == ((16, 32), (48, 64))


def test_trouble_is_what_was_asked_for() -> None:
    simulator, got = messages(
        n_messages=1000, n_scalars=4, drop=0.1, reorder=0.1, duplicate=0.1, missing=0.1,
        malformed=0.1, stop_every=100, change_every=70,
    )  # fmt: skip
    plain = [message for message in got if isinstance(message, Message)]
    pulses = [message.pulse_id for message in plain]
    assert 850 < len(set(pulses)) < 950
    assert 60 < len(pulses) - len(set(pulses)) < 140
    assert 50 < sum(a > b for a, b in itertools.pairwise(pulses)) < 200
    assert 60 < got.count(None) < 140
    assert 5 <= sum(isinstance(message, ControlMessage) for message in got) <= 10
    kinds = Counter(tuple((v.header.name, v.header.type) for v in m.channels) for m in plain)
    assert len(kinds) == 5
    values = [value.present for message in plain for value in message.channels]
    assert 0.07 < values.count(False) / len(values) < 0.13
    assert simulator.not_taken == 0


def test_same_seed_same_trouble() -> None:
    runs = [messages(n_messages=100, n_scalars=1, drop=0.3, seed=7)[1] for _ in range(2)]
    first, second = ([message.pulse_id for message in run] for run in runs)
    assert first == second


def test_command_and_its_ledger(commands: Commands, tmp_path: Path) -> None:
    ledger = tmp_path / "sim.json"
    sim = commands(
        "bsread-sim", "-a", "tcp://127.0.0.1:0", "-n", "30", "-fps", "1000", "--ledger", ledger
    )
    assert sim.wait() == 0
    assert "30 pulses, 0 messages sent, 30 not taken" in sim.text
    (account,) = read_ledgers(ledger)
    assert str(account.rejected["no receiver"]) == "1-30"


@pytest.mark.parametrize(
    ("channels", "expected"),
    [
        ("X=int99", "'int99' in 'X=int99' is not a type"),
        ("=int8", "does not name a channel"),
        ("X,X", "named twice"),
        ("X=every0", "is not a type"),
    ],
)
def test_wrong_channels(channels: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        BsreadSimSettings.of(channels=channels)


def test_channels_of_a_command_line() -> None:
    settings = BsreadSimSettings.of(n_scalars=0, channels="A:B=uint8/3x4/lz4/big/every10+3, C")
    assert settings.channels == (
        SimChannel("A:B", "uint8", (3, 4), "big", "lz4", 10, 3),
        SimChannel("C"),
    )


def test_address_that_is_taken(commands: Commands) -> None:
    assert commands("bsread-sim", "-a", "tcp://192.0.2.1:1").wait() == 1
