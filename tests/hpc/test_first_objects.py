"""What a channel shows first or once more is no frame: after restarts of stages and of sources."""

from __future__ import annotations

import pvaccess as pva
import pytest

from pvapy_stream.frame import Frame
from pvapy_stream.pva.lazy import frame_of
from pvapy_stream.transport.ports import Return
from tests.hpc.bench import BUILDER, Bench, frame, wait_for
from tests.support import Source, image

# How a stage publishes and the next one receives, and with which library for PVA.
WAYS = [("pvas", "pva", "own"), ("pvas", "pva", "binding"), ("shm", "shm", "own")]


@pytest.mark.parametrize(("out", "into", "library"), WAYS)
def test_a_restarted_stage_passes_no_raw_object_on(
    bench: Bench, prefix: str, out: str, into: str, library: str
) -> None:
    """The last object of the source was sent before the stage was there again."""
    source = Source(f"{prefix}image", BUILDER.build(Frame.of(8, image(8))))
    output = f"{prefix}out"
    again = bench.consumer(
        input_channel=source.channel, input_mode="pva", output_channel=output, output_mode=out,
        pva_library=library, incarnation=2,
    )  # fmt: skip
    wait_for(lambda: again.stage.output, again)
    # This one would process the first object that it is shown.
    last = bench.consumer(
        consumer_id=2, input_channel=output, input_mode=into, pva_library=library,
        skip_initial_updates=0,
    )  # fmt: skip
    wait_for(lambda: last.stage.ledger.opened, again, last)
    if into == "pva":
        shown = frame_of(pva.Channel(output).get("field()"))
        assert (shown.id, shown.image.any()) == (0, False)
    source.publish([9, 10])
    wait_for(lambda: last.stage.counts.processed >= 2, again, last)
    bench.stop()
    source.close()
    assert (list(again.stage.ledger.skipped), list(again.stage.ledger.processed)) == ([8], [9, 10])
    assert list(last.stage.ledger.received) == list(last.stage.ledger.processed) == [9, 10]


@pytest.mark.parametrize("library", ["own", "binding"])
def test_the_initial_value_of_a_source_is_no_frame_for_a_stage_that_was_killed_before_any(
    bench: Bench, source: Source, library: str
) -> None:
    again = bench.consumer(
        input_channel=source.channel, input_mode="pva", pva_library=library, incarnation=2
    )
    wait_for(lambda: again.receiver.counts().received, again)
    source.publish([1, 2])
    wait_for(lambda: again.stage.counts.processed >= 2, again)
    bench.stop()
    assert (list(again.stage.ledger.skipped), list(again.stage.ledger.processed)) == ([0], [1, 2])


def test_a_collector_takes_nothing_that_a_new_producer_shows_before_any_frame(
    bench: Bench, prefix: str
) -> None:
    made = bench.collector(
        input_channel=f"{prefix}mid:*", producer_id_list=(1,), skip_initial_updates=1
    )
    made._put(1, frame(28))
    # It was killed before it sent any more; the next one has sent nothing yet.
    made._put_again(1, frame(0), Return())
    made._put(1, frame(1))
    bench.stop()
    (account,) = made.accounts
    assert (str(account.ledger.skipped), str(account.ledger.processed)) == ("0,28", "1")


def test_a_collector_takes_nothing_that_its_producers_show_twice(bench: Bench, prefix: str) -> None:
    made = bench.collector(
        input_channel=f"{prefix}mid:*", producer_id_list=(1, 2), skip_initial_updates=1
    )
    for number in (0, 0):
        for producer in (1, 2):
            made._put(producer, frame(number))
    for number in (1, 2, 3, 4):
        made._put(2 - number % 2, frame(number))
    # Their channels were opened anew, and show what they had shown last.
    for producer, number in ((1, 3), (2, 4)):
        made._put_again(producer, frame(number), Return())
    for number in (5, 6):
        made._put(2 - number % 2, frame(number))
    bench.stop()
    assert made.stage.counts.processed == 6
    assert made.stage.counts.duplicates == 2
    found = [(str(a.ledger.processed), str(a.ledger.skipped)) for a in made.accounts]
    assert found == [("1,3,5", "0,3"), ("2,4,6", "0,4")]
    assert [str(account.ledger.duplicate) for account in made.accounts] == ["0", "0"]
    assert [len(account.ledgers) for account in made.accounts] == [1, 1]
