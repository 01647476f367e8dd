"""Takes messages of a socket into the ring; malformed messages are counted and dropped."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Sequence

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger
from pvapy_stream.bsread.analyzer import StreamAnalyzer
from pvapy_stream.bsread.channel_values import STAMP_SIZE
from pvapy_stream.bsread.codec import ControlMessage, Decoder, MessageLimits
from pvapy_stream.bsread.packing import Buffer
from pvapy_stream.bsread.stored import Packer, Stored
from pvapy_stream.daq.id_watch import IdWatch, Seen
from pvapy_stream.daq.ring import Ring
from pvapy_stream.errors import BsreadError, MissingExtraError

_LOG_EVERY = 1000
_STAMP_SIZES = {0, STAMP_SIZE}

_log = logging.getLogger(__name__)


class Intake:
    """Takes messages into a ring. For one thread.

    Args:
        ring: where they go.
        limits: what a message may hold.
        analyzer: looks at each, if asked for.
        ledger: begins the account of their pulse ids.
        skip: how many messages are not kept at first.

    Attributes:
        account: the ledgers of their pulse ids, one for each epoch.
        received: messages taken into the ring.
        nbytes: their bytes.
        malformed: dropped messages.
        commands: messages of the sender that are no data.
        channels: number of channels of the newest message.
        last_error: what was wrong with the last malformed message.
        heard: when the last message came, s on a clock that does not go back; None: never.
    """

    def __init__(
        self,
        ring: Ring[Stored],
        limits: MessageLimits,
        ledger: Ledger,
        analyzer: StreamAnalyzer | None = None,
        skip: int = 0,
    ) -> None:
        self._ring = ring
        self._skip = skip
        self.account = Account(ledger)
        self._watch = IdWatch()
        self._decoder = Decoder(limits)
        self._packer = Packer()
        self._analyzer = analyzer
        self._checked = b""
        self.received = self.nbytes = self.malformed = self.commands = self.channels = 0
        self.last_error = ""
        self.heard: float | None = None

    def take(self, parts: Sequence[Buffer], now: float) -> None:
        """Take a message."""
        self.heard = now
        try:
            envelope = self._decoder.envelope(parts)
            if isinstance(envelope, ControlMessage):
                self._note_command(envelope)
                return
            main, headers = envelope
            if self._skip:
                self._skip -= 1
                self.account.ledger.received.add(main.pulse_id)
                self.account.ledger.skipped.add(main.pulse_id)
                return
            timestamp = time.time_ns() if main.timestamp_ns is None else main.timestamp_ns
            message = self._packer.pack(parts, main.pulse_id, timestamp)
            self._check_stamps(message)
        except (BsreadError, MissingExtraError) as error:
            self._note_malformed(error)
            return
        self.received += 1
        self.nbytes += message.nbytes + len(message.header)
        self.channels = len(headers)
        self._enter(main.pulse_id)
        self._ring.append(message, now)
        if self._analyzer is not None:
            self._analyzer.observe(message, headers, now)

    def _enter(self, pulse_id: int) -> None:
        """Note a pulse in its epoch, which the next one decides for one that is far from others."""
        doubted = self._watch.doubted
        seen = self._watch.see(pulse_id)
        if doubted is not None:
            if seen is Seen.RESTARTED:
                self.account.begin_epoch()
            self._note(doubted)
        if seen is not Seen.DOUBTED:
            self._note(pulse_id)

    def settle(self) -> None:
        """Note what still waits for the next pulse: there will be none."""
        if self._watch.doubted is not None:
            self._note(self._watch.doubted)
            self._watch.doubted = None

    def _note(self, pulse_id: int) -> None:
        ledger = self.account.ledger
        if pulse_id in ledger.received:
            ledger.duplicate.add(pulse_id)
        ledger.received.add(pulse_id)
        ledger.processed.add(pulse_id)
        # What is kept can be had: readers ask for what they want of it.
        ledger.publish(pulse_id)

    def _check_stamps(self, message: Stored) -> None:
        if message.lengths is self._checked:
            return
        sizes = set(array("I", message.lengths)[1::2])
        if not sizes <= _STAMP_SIZES:
            raise BsreadError(f"timestamps of {sorted(sizes - _STAMP_SIZES)} bytes")
        self._checked = message.lengths

    def _note_command(self, command: ControlMessage) -> None:
        # A sender that stops may start again, and nobody is sent elsewhere by a message.
        self.commands += 1
        if self.commands == 1 or self.commands % _LOG_EVERY == 0:
            _log.warning(
                "the source sent the command %s %s; the buffer ignores it",
                command.kind,
                command.address,
            )

    def _note_malformed(self, error: Exception) -> None:
        self.malformed += 1
        self.account.ledger.anonymous += 1
        self.last_error = str(error)
        if self._analyzer is not None:
            self._analyzer.malformed(self.last_error)
        if self.malformed == 1 or self.malformed % _LOG_EVERY == 0:
            _log.error("a message is malformed: %s (%d so far)", error, self.malformed)
