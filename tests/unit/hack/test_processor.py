"""A host's processor in the simulation, and what it does to a piece on its way."""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from agent.http.wire import BUFFER_BYTES
from hack.simulate.network import Clock, Host, Network
from hack.simulate.processor import NOTHING, Processor, Work
from hack.simulate.rollout import Plan
from hack.simulate.transfers import Transfers

MEBIBYTE = 1 << 20


def ends_at(count: int, size: int, rate: float, taking: Work = NOTHING, sending: Work = NOTHING, cores: int = 1) -> list[float]:
    """When each of `count` pieces is done that go from one host to another at once."""
    clock, done = Clock(), []
    transfers = Transfers(clock, Network(clock), taking, sending)
    sender, taker = Host(rate, rate, cores), Host(rate, rate, cores)
    for _ in range(count):
        transfers.between_nodes(sender, taker, size, lambda: done.append(clock.now))
    clock.run(lambda: len(done) == count, 60.0)
    return done


def test_bytes_are_handled_on_all_cores_at_once_and_pieces_by_one_interpreter() -> None:
    processor = Processor(2)
    assert [processor.work(3.0, 0.0) for _ in range(3)] == [3.0, 3.0, 6.0]
    processor = Processor(2)
    assert [processor.interpret(3.0, 0.0) for _ in range(3)] == [3.0, 6.0, 9.0]


def test_the_interpreter_goes_before_work_for_bytes_which_comes_that_much_later() -> None:
    processor = Processor(1)
    assert processor.work(3.0, 0.0) == 3.0
    assert processor.interpret(1.0, 2.0) == 3.0
    assert processor.work(1.0, 0.0) == 5.0


def test_work_takes_the_core_that_stood_idle_for_the_shortest_time_so_that_what_began_earlier_finds_another() -> None:
    processor = Processor(2)
    processor.work(4.0, 0.0)
    processor.work(1.0, 5.0)
    assert processor.work(3.0, 1.0) == 4.0


def test_a_piece_whose_work_costs_nothing_takes_as_long_as_the_link_does() -> None:
    assert ends_at(1, MEBIBYTE, MEBIBYTE) == [1.0]


def test_of_the_work_for_bytes_only_the_last_buffer_waits_for_the_last_byte() -> None:
    (end,) = ends_at(1, MEBIBYTE, MEBIBYTE, taking=Work(byte_seconds=0.5 / MEBIBYTE))
    assert end == pytest.approx(1.0 + 0.5 * BUFFER_BYTES / MEBIBYTE)


def test_where_the_processor_is_slower_than_the_link_it_decides() -> None:
    work = Work(byte_seconds=2.0 / MEBIBYTE)
    assert ends_at(1, MEBIBYTE, MEBIBYTE, taking=work) == pytest.approx([2.0])
    assert ends_at(1, MEBIBYTE, MEBIBYTE, sending=work) == pytest.approx([2.0])
    assert ends_at(2, MEBIBYTE, 2 * MEBIBYTE, taking=work) == pytest.approx([2.0, 4.0])
    assert ends_at(2, MEBIBYTE, 2 * MEBIBYTE, taking=work, cores=2) == pytest.approx([2.0, 2.0])


def test_a_sender_works_for_a_piece_before_its_first_byte_and_a_taker_after_its_last() -> None:
    assert ends_at(1, MEBIBYTE, MEBIBYTE, sending=Work(piece_seconds=0.25)) == [1.25]
    assert ends_at(1, MEBIBYTE, MEBIBYTE, taking=Work(piece_seconds=0.25)) == [1.25]
    assert ends_at(2, MEBIBYTE, 2 * MEBIBYTE, taking=Work(piece_seconds=0.25), cores=4) == [1.25, 1.5]


@pytest.mark.parametrize("stopped_at", [0.1, 0.5, 1.28, 1.5])
def test_a_transfer_that_is_stopped_is_never_done_whatever_it_waits_for(stopped_at: float) -> None:
    clock, done = Clock(), []
    work = Work(0.25, 0.25 / MEBIBYTE)
    transfers = Transfers(clock, Network(clock), work, work)
    host = Host(MEBIBYTE, MEBIBYTE)
    transfer = transfers.between_nodes(Host(MEBIBYTE, MEBIBYTE), host, MEBIBYTE, lambda: done.append(clock.now))
    clock.at(stopped_at, transfers.stop, transfer)
    clock.at(3.0, done.append, inf)
    clock.run(lambda: bool(done), 60.0)
    assert done == [inf]
    assert not host.incoming


def test_what_a_piece_costs_its_origin_is_not_counted() -> None:
    clock, done = Clock(), []
    transfers = Transfers(clock, Network(clock), NOTHING, Work(piece_seconds=9.0))
    origin, taker = Host(MEBIBYTE, inf), Host(MEBIBYTE, MEBIBYTE)
    transfers.from_origin(origin, taker, MEBIBYTE, lambda: done.append(clock.now), MEBIBYTE / 2)
    clock.run(lambda: bool(done), 60.0)
    assert done == [2.0]


def test_no_plan_is_faster_than_the_work_of_all_nodes_divided_among_them() -> None:
    plan = Plan(nodes=4, pieces=8, piece_bytes=MEBIBYTE, node_rate=1e12, origin_rate=1e12, cores=2)
    assert plan.bound == plan.links_bound
    taking = replace(plan, taking=Work(byte_seconds=1 / MEBIBYTE))
    assert taking.bound == pytest.approx(8 / 2)
    interpreted = replace(plan, taking=Work(piece_seconds=1.0))
    assert interpreted.bound == pytest.approx(8), "on one core, whatever their number"


def test_a_piece_comes_from_a_node_but_for_the_one_that_the_origin_sends() -> None:
    plan = Plan(nodes=4, pieces=8, piece_bytes=MEBIBYTE, sending=Work(piece_seconds=1.0))
    assert plan.processors_bound == pytest.approx(8 * 3 / 4)
    assert replace(plan, origin_rate=0.0).processors_bound == pytest.approx(8 * 4 / 5), "the supernode sends as well"
