"""What the ledgers of a run say of frames that came late, as a stage asked for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from chaos.truth import Sent
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger, read_ledgers


@dataclass(slots=True)
class Late:
    """Ids that were repaired, and where a ledger contradicts itself.

    Attributes:
        repaired: ids that came late, in any stage.
        wrong: contradictions, a sentence each.
    """

    repaired: set[int] = field(default_factory=set)
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, ledgers: Sequence[Path]) -> Late:
        """Read the ledgers of all programs."""
        made = cls()
        for path in ledgers:
            for ledger in read_ledgers(path):
                if isinstance(ledger, Ledger):
                    made.add(ledger)
        return made

    def false(self, sent: Sent) -> list[str]:
        """Say which ids were repaired, as it is said, that nobody published."""
        false = self.repaired - set(sent.ids.values()) - set(sent.perhaps.values())
        return [f"repaired, but never published: {IdSet(sorted(false))}"] if false else []

    def add(self, ledger: Ledger) -> None:
        """Look at one epoch of a stage."""
        name = f"{ledger.stage} {ledger.stage_id}, epoch {ledger.epoch}"
        absent = ledger.missed | ledger.unknown
        self.repaired.update(ledger.repaired)
        if never := ledger.repaired - ledger.received:
            self.wrong.append(f"{name}: repaired, but not received: {never}")
        if both := ledger.repaired & absent:
            self.wrong.append(f"{name}: repaired, but also missed: {both}")
        for reason, ids in ledger.unrepairable.items():
            if came := ids - absent:
                self.wrong.append(f"{name}: not missed, but not to be repaired ({reason}): {came}")
