"""Updates of the own server are shared by the monitors of a group."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pvapy_stream.pva.wire import operations
from pvapy_stream.pva.wire.stream import Command
from tests.pva.net.served import KIND, Monitor, Served, fill
from tests.support import wait_until


def ids_of(monitor: Monitor) -> list[int]:
    found: list[int] = []
    monitor.client.send(Command.ECHO, b"x")
    while True:
        while monitor.client._found:
            one = monitor.client._found.pop(0)
            if one.command == Command.ECHO:
                return found
            reader = one.reader()
            reader.take(5)
            update = operations.MonitorUpdate.read(
                1, KIND, reader, monitor.client.known, monitor.value
            )
            found.append(update.value["id"])
        count = monitor.client.link.recv_into(monitor.client._assembler.space())
        monitor.client._found += monitor.client._assembler.received(count)


Ask = Callable[..., Monitor]


@pytest.fixture
def ask(served: Served) -> Ask:
    def new(options: str, field: str = "_") -> Monitor:
        asked = f"record[queueSize=100]field({field}[pydistributor={options}])"
        monitor = served.monitor(asked).start()
        assert monitor.next().value["id"] == served.channel.value["id"]
        return monitor

    return new


def test_clients_of_a_group_take_turns(served: Served, ask: Ask) -> None:
    alone = served.monitor("record[queueSize=100]").start()
    two = [ask("group:g;updates:2;trigger:id") for _ in range(2)]
    other = ask("group:other;trigger:id")
    fill(served, alone, 8)
    assert ids_of(alone)[1:] == ids_of(other) == list(range(1, 9))
    assert [ids_of(one) for one in two] == [[1, 2, 5, 6], [3, 4, 7, 8]]


def test_sets_of_a_group_take_turns_and_all_of_a_set_get_the_same(served: Served, ask: Ask) -> None:
    sets = [ask(f"group:g;set:{name};updates:3;trigger:id") for name in "aabb"]
    fill(served, sets[0], 12)
    got = [ids_of(one) for one in sets]
    assert got == [[1, 2, 3, 7, 8, 9]] * 2 + [[4, 5, 6, 10, 11, 12]] * 2


def test_the_options_of_the_first_of_a_set_are_those_of_the_set(served: Served, ask: Ask) -> None:
    sets = [ask("set:a;updates:2;trigger:id"), ask("set:a;updates:7;trigger:nothing")]
    fill(served, sets[0], 3)
    assert [ids_of(one) for one in sets] == [[1, 2, 3]] * 2


@pytest.mark.parametrize("mode", ["one", "all"])
def test_the_mode_decides_who_of_a_set_gets_an_update(served: Served, ask: Ask, mode: str) -> None:
    clients = [ask(f"set:{name};mode:{mode};trigger:id") for name in "abab"]
    fill(served, clients[0], 8)
    got = [ids_of(one) for one in clients]
    if mode == "one":
        assert got == [[1, 5], [2, 6], [3, 7], [4, 8]]
    else:
        assert got == [[1, 3, 5, 7], [2, 4, 6, 8]] * 2


def test_an_update_with_the_same_trigger_is_no_new_one(served: Served, ask: Ask) -> None:
    two = [ask("trigger:time.tag") for _ in range(2)]
    for number, tag in enumerate((1, 1, 2, 2, 3), start=1):
        served.post(number, 1, time={"seconds": 0, "tag": tag})
    assert [ids_of(one) for one in two] == [[1, 5], [3]]


def test_a_field_may_carry_the_option(served: Served, ask: Ask) -> None:
    two = [ask("group:g", field="id") for _ in range(2)]
    assert [name for name, _ in two[0].kind.fields] == ["id"]
    served.post(1)
    served.post(1)
    served.post(2)
    got = []
    for one in two:
        got.append(one.next().value)
        one.nothing_more()
    assert got == [{"id": 1}, {"id": 2}]


def test_who_goes_is_not_waited_for(served: Served, ask: Ask) -> None:
    three = [ask("trigger:id;updates:2") for _ in range(3)]
    fill(served, three[0], 3)
    # It is the turn of the second, in the middle of its run.
    three[1].client.link.close()
    wait_until(lambda: len(served.channel.monitors) == 2)
    for number in range(4, 10):
        served.post(number)
    assert ids_of(three[0]) == [1, 2, 5, 6, 9]
    assert ids_of(three[2]) == [4, 7, 8]
    for one in three[::2]:
        one.client.link.close()
    wait_until(lambda: not served.channel._groups)


@pytest.mark.parametrize("options", ["updates:0", "updates:x", "updates:-1"])
def test_no_updates_each_means_no_distribution(served: Served, ask: Ask, options: str) -> None:
    two = [ask(options) for _ in range(2)]
    fill(served, two[0], 3)
    assert [ids_of(one) for one in two] == [[1, 2, 3]] * 2
