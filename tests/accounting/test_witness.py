"""What others witness of a killed stage."""

from __future__ import annotations

from dataclasses import replace

from pvapy_stream.accounting.audit_result import audit
from pvapy_stream.accounting.idset import IdSet
from pvapy_stream.accounting.ledger import Ledger


def killed(ledger: Ledger) -> Ledger:
    return replace(ledger, closed=False)


def ids(*numbers: int) -> IdSet:
    made = IdSet()
    for number in numbers:
        made.add(number)
    return made


def test_what_a_receiver_got_a_killed_stage_did_publish() -> None:
    source = Ledger("sim", output_channel="a", published=ids(1, 2, 3, 4, 5))
    died = Ledger(
        "consumer", 1, "a", "b", received=ids(1, 2), processed=ids(1, 2), published=ids(1, 2)
    )
    end = Ledger("consumer", 1, "b", "", received=ids(1, 2, 3, 4), processed=ids(1, 2, 3, 4))
    assert len(audit([source, died, end]).channels[0].subscribers[0].lost) == 3
    result = audit([source, killed(died), end])
    assert result.failures == (
        "id 5 lost between sim 0 and consumer 1 on channel a (0 noted as missed)",
    )


def test_a_collector_and_a_producer_that_died() -> None:
    source = Ledger("sim", output_channel="a", published=ids(1, 2, 3, 4, 5, 6))
    one = Ledger("consumer", 1, "a", "b:1", "g", received=ids(1), processed=ids(1))
    one.published = ids(1)
    two = Ledger("consumer", 2, "a", "b:2", "g", received=ids(2, 4, 6), processed=ids(2, 4, 6))
    two.published = ids(2, 4, 6)
    gather = [
        Ledger("collector", 1, "b:1", "c", received=ids(1), processed=ids(1), published=ids(1)),
        Ledger("collector", 1, "b:2", "c", received=ids(2), processed=ids(2), published=ids(2)),
    ]
    end = Ledger("consumer", 1, "c", received=ids(1, 2, 3, 4), processed=ids(1, 2, 3, 4))
    result = audit([source, killed(one), two, *map(killed, gather), end])
    assert result.failures == (
        "id 5 lost between sim 0 and group g (consumer 1, consumer 2) on channel a"
        " (0 noted as missed)",
        "id 6 lost between consumer 2 and collector 1 on channel b:2 (0 noted as missed)",
    )
