"""The account of a consumer or a collector: the ledgers of its sources, and what is missed."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterable

import pvaccess as pva

from pvapy_stream.accounting.account import Account
from pvapy_stream.accounting.ledger import Ledger, merged
from pvapy_stream.files.run_name import run_id
from pvapy_stream.hpc.parts import StageParts
from pvapy_stream.settings import StageSettings
from pvapy_stream.transport.filtered_ids import FilteredReceiver

# s; what a processor that does not return keeps for itself is left out of a status or an account.
STATS_PATIENCE = 0.5
# Building the account takes at most this share of the time, however large it is.
_LEDGER_SHARE = 0.05


class StageAccounts(StageParts):
    """Puts the accounts of a stage's sources together; arguments as of `StageParts`."""

    def __init__(self, settings: StageSettings, stage_id: int, server: pva.PvaServer) -> None:
        super().__init__(settings, stage_id, server)
        # The ledgers as they were last built, and the time at which they are built again.
        self._ledgers: list[dict[str, object]] = []
        self._ledgers_due = 0.0

    @property
    @abstractmethod
    def accounts(self) -> list[Account]:
        """The accounts of the stage, one for each source."""

    def begin(self, incarnation: int) -> None:
        """Say which process of this stage it is: 1 for the first, one more for each restart."""
        for account in self.accounts:
            account.ledger.begin(incarnation)
        self._name_files()

    def _name_files(self) -> None:
        """Say in the ledgers where a writer's files are."""
        file = str(getattr(self.stage.processor, "output_files", ""))
        for account in self.accounts:
            account.ledger.file, account.ledger.run = file, run_id() if file else ""

    def ledgers(self, closed: bool = False, last: bool = False) -> list[dict[str, object]]:
        """The account for files and pipes; nothing when nobody asked for one.

        It is that of now, or, where building it takes long, that of a while ago.

        Args:
            closed: whether this is the end, and in order.
            last: whether this is the end.
        """
        if not self.settings.ledger:
            return []
        if not (closed or last) and time.monotonic() < self._ledgers_due:
            return self._ledgers
        # If process() does not return, its thread holds the lock; the ledgers are built without it.
        locked = self.stage.lock.acquire(timeout=STATS_PATIENCE)
        try:
            start = time.thread_time()
            plain = [one for account in self.accounts for one in account.plain(closed)]
            self._ledgers = self._with_missed(plain)
        finally:
            if locked:
                self.stage.lock.release()
        self._ledgers_due = time.monotonic() + (time.thread_time() - start) / _LEDGER_SHARE
        return self._ledgers

    def whole_account(self) -> Ledger:
        """All accounts as one ledger, with what is missed now."""
        with self.stage.lock:
            whole = merged([one for account in self.accounts for one in account.ledgers])
            whole.missed.update(self.stage.missed(self.newest))
            return whole

    def _with_missed(self, plain: list[dict[str, object]]) -> list[dict[str, object]]:
        """The ledgers with what is missed now, in that of the first source's present epoch."""
        account = self.accounts[0]
        present = plain[len(account.ledgers) - 1]
        ledger, tracker = account.ledger, self.stage.tracker
        present["missed"] = (ledger.missed | self.stage.missed(self.newest)).to_list()
        present["unknown"] = (ledger.unknown | tracker.unknown).to_list()
        return plain

    def count_missed(self, filters: Iterable[FilteredReceiver]) -> int:
        """Objects that did not come, without those that a source may yet say it filtered."""
        stage = self.stage
        open_yet = not stage.counts.end_time and any(one.follows for one in filters)
        after = self._settling.until if open_yet else None
        return stage.count_missed(self.newest, -1 if open_yet and after is None else after)

    @property
    def newest(self) -> int | None:
        """The source's newest id, where it is known."""
        return None

    @property
    @abstractmethod
    def missed(self) -> int:
        """How many objects did not come."""
