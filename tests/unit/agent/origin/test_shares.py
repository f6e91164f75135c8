"""Places for questions: who gets one, who waits, and that whoever does not answer costs the others nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from agent.origin import shares
from agent.origin.shares import Seat, SharedThreads, Shares


def taken(places: Shares, *registries: str, node: str = "") -> list[Seat]:
    found = [places.take(registry, node) for registry in registries]
    return [place for place in found if place]


def answered(places: Shares, *registries: str) -> None:
    """They were asked, and answered soon."""
    for registry in registries:
        with places.take(registry) as place:  # type: ignore[union-attr]
            assert place


def test_a_registry_that_has_not_answered_yet_has_a_quarter() -> None:
    assert len(taken(Shares(16), *["a.test"] * 16)) == 4


def test_one_that_answered_has_half() -> None:
    places = Shares(16)
    answered(places, "a.test")
    assert len(taken(places, *["a.test"] * 16)) == 8


def test_names_that_hang_leave_all_their_places_to_registries_that_answer() -> None:
    places = Shares(16)
    answered(places, "good.test", "better.test")
    assert len(taken(places, *[f"x.hang-{number}.test" for number in range(200)])) == 8
    assert len(taken(places, *["good.test", "better.test"] * 10)) == 8


def test_the_names_of_one_domain_are_one_registry_while_they_are_silent() -> None:
    assert len(taken(Shares(16), *[f"r{number}.hang.test:{5000 + number}" for number in range(16)])) == 4
    assert len(taken(Shares(16), *[f"10.0.0.1:{5000 + number}" for number in range(16)])) == 4
    assert len(taken(Shares(16), "10.0.0.1", "10.0.0.2", "10.0.0.1", "10.0.0.2", "[fd00::1]:443", "[fd00::2]:443")) == 6


def test_one_node_has_a_quarter_of_what_hangs_and_half_of_what_does_not() -> None:
    places = Shares(16)
    assert len(taken(places, *[f"hang-{number}.test" for number in range(16)], node="a")) == 4
    assert len(taken(places, *[f"hang-{number}.test" for number in range(16, 32)], node="b")) == 4
    assert not taken(places, "other.test", node="c"), "the other half is for registries that answered"
    names = [f"good-{number}.test" for number in range(9)]
    places = Shares(16)
    answered(places, *names)
    assert len(taken(places, *names, node="a")) == 8
    assert len(taken(places, *names, node="b")) == 8


def test_an_answer_that_comes_late_makes_no_registry_prompt_and_takes_that_from_one_that_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    places = Shares(16)
    answered(places, "a.test")
    monkeypatch.setattr(shares, "PROMPT_SECONDS", 0.0)
    answered(places, "a.test")
    assert len(taken(places, *["a.test"] * 16)) == 4


def test_what_lasts_after_its_answer_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob takes as long as its link."""
    places = Shares(16)
    first = taken(places, *["a.test"] * 4)
    assert not taken(places, "a.test")
    first[0].answered()
    monkeypatch.setattr(shares, "PROMPT_SECONDS", 0.0)
    first[0].give_back()
    assert len(taken(places, *["a.test"] * 16)) == 8, "what silent ones hold is among their own"


def test_of_those_that_wait_the_registry_and_the_node_with_fewest_go_first_and_prompt_ones_before_all() -> None:
    places, order = Shares(8), []

    def noted(name: str) -> Callable[[Seat], None]:
        return lambda place: order.append((name, place))

    answered(places, "good.test")
    prompt = taken(places, *["good.test"] * 4)
    silent = taken(places, "a.test", "x.test", "y.test", "z.test")
    for name in ("a.test", "c.test", "good.test"):
        places.ask(name, "", noted(name))
    assert not order
    silent[3].give_back()
    assert [name for name, _ in order] == ["c.test"]
    prompt[0].give_back()
    silent[2].give_back()
    assert [name for name, _ in order] == ["c.test", "good.test", "a.test"]


def test_whoever_waits_in_vain_is_told_so_and_leaves_nothing_behind() -> None:
    places = Shares(1)
    place = places.take("a.test")
    assert place
    assert places.take("b.test", seconds=0.05) is None
    place.give_back()
    place.give_back()
    assert places.take("b.test")
    assert places.take("c.test") is None


def test_it_is_known_whose_questions_leave_a_registry_no_place() -> None:
    places = Shares(8)
    taken(places, "a.test", "a.test")
    assert places.has_its_part("a.test")
    taken(places, "b.test", "b.test")
    assert places.take("c.test") is None
    assert not places.has_its_part("c.test")


def test_threads_take_their_places_in_turn_and_each_does_what_it_is_told() -> None:
    threads, done, let_go = SharedThreads(4, "test"), [], threading.Event()

    def hang(_: Seat) -> None:
        let_go.wait(30)
        done.append("hung")

    heard = threading.Event()
    for number in range(20):
        threads.submit(f"hang-{number}.test", "", hang)
    threads.submit("good.test", "", lambda _: heard.set())
    assert not heard.wait(0.05), "two of four places are for registries that have answered"
    let_go.set()
    assert heard.wait(30)
    threads.join()
    assert done == ["hung"] * 20


def test_what_waits_when_it_is_stopped_is_not_begun() -> None:
    threads, let_go, done = SharedThreads(2, "test"), threading.Event(), []
    threads.submit("a.test", "", lambda _: let_go.wait(30) and None)
    threads.submit("a.test", "", lambda _: done.append(1))
    threads.stop()
    threads.submit("b.test", "", lambda _: done.append(2))
    let_go.set()
    threads.join()
    assert not done


def test_without_a_thread_left_it_is_said_at_once_or_done_by_one_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads, let_go, done = SharedThreads(4, "test"), threading.Event(), threading.Event()
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            threads.submit("a.test", "", lambda _: None)
    threads.submit("a.test", "", lambda _: let_go.wait(30) and None)
    with monkeypatch.context() as full:
        full.setattr(threading.Thread, "start", refuse)
        threads.submit("b.test", "", lambda _: done.set())
    let_go.set()
    assert done.wait(30)
    threads.join()
