"""Permissions as nodes share them: one asks, the others wait for what it is told, and nobody decides what others are refused."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from typing import Any

import pytest

from agent.registry.manifests import VERDICT_SECONDS
from agent.swarm import messages
from agent.values.errors import OriginError
from supernode import verdicts
from tests.tracker import Agent, Lab, in_loop

REPOSITORY = ("registry.test", "team/app")
WHO = b"\x01" * 32
BLOB = "blobs/sha256:" + "ab" * 32
TAG = "manifests/1"
BODY, OTHER = b'{"schemaVersion": 2}', b'{"schemaVersion": 2, "layers": []}'


@pytest.fixture(autouse=True)
def intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    def believed_seconds(self: Lab, registry: str, repository: str, reference: str) -> float:
        return VERDICT_SECONDS if reference.startswith("sha256:") else 30.0

    monkeypatch.setattr(Lab, "believed_seconds", believed_seconds, raising=False)


def ask(agent: Agent, path: str = BLOB, who: bytes = WHO, request: int = 1) -> None:
    agent.say(messages.AskVerdict(request, *REPOSITORY, path, who))


def tell(agent: Agent, outcome: int = messages.ALLOWED, path: str = BLOB, body: bytes = b"", who: bytes = WHO) -> None:
    agent.say(messages.Told(*REPOSITORY, path, who, outcome, body))


def judged(agent: Agent) -> list[messages.Judged]:
    return agent.heard(messages.Judged)


def is_asked(agent: Agent) -> bool:
    return bool(judged(agent)) and judged(agent)[-1].yours


def is_allowed(agent: Agent) -> bool:
    return bool(judged(agent)) and not judged(agent)[-1].yours and judged(agent)[-1].age is not None


def agents(lab: Lab, count: int) -> list[Agent]:
    return [Agent(lab, f"node-{number}") for number in range(count)]


@in_loop
async def test_one_is_asked_and_all_others_have_its_answer(lab: Lab) -> None:
    first, *others = agents(lab, 20)
    for agent in [first, *others]:
        ask(agent)
    assert is_asked(first)
    assert not any(map(judged, others))
    tell(first)
    assert all(map(is_allowed, others))
    late = Agent(lab, "late")
    ask(late)
    assert is_allowed(late)
    assert lab.tracker.verdicts._waiting == 0


@in_loop
async def test_another_credential_repository_or_path_is_another_question(lab: Lab) -> None:
    first, *others = agents(lab, 4)
    ask(first)
    tell(first)
    ask(others[0], who=b"\x02" * 32)
    ask(others[1], path="manifests/sha256:" + "ab" * 32)
    others[2].say(messages.AskVerdict(1, "registry.test", "team/other", BLOB, WHO))
    assert all(map(is_asked, others))


@in_loop
async def test_when_the_node_that_was_asked_leaves_the_next_one_is(lab: Lab) -> None:
    first, second, third = agents(lab, 3)
    for agent in (first, second, third):
        ask(agent)
    first.leave()
    lab.flush()
    assert is_asked(second)
    tell(second)
    assert is_allowed(third)


@in_loop
async def test_when_the_node_that_was_asked_says_nothing_the_next_one_is_in_seconds(lab: Lab) -> None:
    first, second = agents(lab, 2)
    ask(first)
    ask(second)
    now = time.monotonic()
    lab.tracker.verdicts.tick(now + verdicts.ASKER_SECONDS_MAX - 1)
    lab.flush()
    assert not judged(second)
    lab.tracker.verdicts.tick(now + verdicts.ASKER_SECONDS_MAX + 1)
    lab.flush()
    assert is_asked(second)


@pytest.mark.parametrize("outcome", [messages.REFUSED, messages.UNANSWERED])
def test_a_refusal_and_a_silence_are_nobody_elses(monkeypatch: pytest.MonkeyPatch, outcome: int) -> None:
    """A node that lies about it costs the others a question of their own."""

    @in_loop
    async def run(lab: Lab) -> None:
        first, *others = agents(lab, 4)
        for agent in [first, *others]:
            ask(agent)
        tell(first, outcome)
        assert all(map(is_asked, others))

    run(monkeypatch)


@in_loop
async def test_a_later_refusal_overrides_and_is_told_to_those_who_believe_otherwise(lab: Lab) -> None:
    first, second, third = agents(lab, 3)
    ask(first)
    ask(second)
    tell(first)
    tell(third, messages.REFUSED)
    revoked = messages.Revoked(*REPOSITORY, BLOB, WHO)
    assert first.heard(messages.Revoked) == second.heard(messages.Revoked) == [revoked]
    ask(third)
    assert is_asked(third)


@in_loop
async def test_an_old_answer_is_asked_for_anew_and_good_only_while_the_origin_is_away(lab: Lab) -> None:
    first, second = agents(lab, 2)
    ask(first)
    tell(first)
    (case,) = lab.tracker.verdicts._cases.values()
    assert case.agreed
    case.agreed = (time.monotonic() - VERDICT_SECONDS - 1, case.agreed[1])
    ask(second)
    assert judged(second)[-1].yours
    assert (judged(second)[-1].age or 0) > VERDICT_SECONDS


@in_loop
async def test_what_a_tag_means_two_nodes_have_to_say(lab: Lab) -> None:
    liar, honest, other, reader = agents(lab, 4)
    for agent in (liar, honest, other, reader):
        ask(agent, TAG)
    tell(liar, path=TAG, body=OTHER)
    assert is_asked(honest)
    assert judged(honest)[-1].age is None, "one node's word is no answer, not even an old one"
    tell(honest, path=TAG, body=BODY)
    assert is_asked(other)
    tell(liar, path=TAG, body=OTHER)
    assert not judged(reader), "one node has one word, however often it says it"
    tell(other, path=TAG, body=BODY)
    assert judged(reader)[-1].body == BODY
    assert is_allowed(reader)


@in_loop
async def test_a_manifest_by_digest_has_to_have_it(lab: Lab) -> None:
    liar, other = agents(lab, 2)
    path = "manifests/sha256:" + hashlib.sha256(BODY).hexdigest()
    ask(liar, path)
    ask(other, path)
    tell(liar, path=path, body=OTHER)
    assert is_asked(other)
    tell(other, path=path, body=BODY)
    ask(liar, path, request=2)
    assert judged(liar)[-1].body == BODY


@in_loop
async def test_nodes_that_all_say_something_else_leave_the_others_to_ask(lab: Lab) -> None:
    many = agents(lab, verdicts.VOTES_MAX + 3)
    for agent in many:
        ask(agent, TAG)
    for number, agent in enumerate(many[: verdicts.VOTES_MAX]):
        tell(agent, path=TAG, body=b"%d" % number)
    assert all(map(is_asked, many))


@in_loop
async def test_where_there_is_no_credential_the_supernode_asks(lab: Lab) -> None:
    asked: list[Any] = []

    def blob_size(registry: str, repository: str, digest: str) -> int | None:
        asked.append((registry, repository, digest))
        return 17

    lab.tracker.verdicts._blob_size = blob_size
    many = agents(lab, 5)
    for agent in many:
        ask(agent, who=b"")
    await lab.until(lambda: all(map(is_allowed, many)))
    assert asked == [(*REPOSITORY, BLOB.removeprefix("blobs/"))]


@in_loop
async def test_what_the_supernode_cannot_learn_each_asks_for_itself(lab: Lab) -> None:
    def blob_size(*_: str) -> int | None:
        raise OriginError(502, "no way there from here")

    lab.tracker.verdicts._blob_size = blob_size
    many = agents(lab, 5)
    for agent in many:
        ask(agent, who=b"")
    await lab.until(lambda: all(map(is_asked, many)))


@in_loop
async def test_a_blob_that_is_coming_here_may_be_had_without_a_credential(lab: Lab) -> None:
    lab.tracker.verdicts.shown(*REPOSITORY, BLOB.removeprefix("blobs/"))
    await asyncio.sleep(0.01)
    (agent,) = agents(lab, 1)
    ask(agent, who=b"")
    assert is_allowed(agent)


@in_loop
async def test_a_name_that_is_none_is_each_nodes_own(lab: Lab) -> None:
    (agent,) = agents(lab, 1)
    for path in ("blobs/1/2", "tags/list", "", "blobs/..", "manifests/" + "a" * 300):
        agent.say(messages.AskVerdict(1, *REPOSITORY, path, WHO))
        assert is_asked(agent)
    agent.say(messages.AskVerdict(1, "a b", "x", BLOB, WHO))
    assert not lab.tracker.verdicts._cases


@in_loop
async def test_so_much_is_remembered_and_no_more(lab: Lab) -> None:
    lab.patch.setattr(verdicts, "BYTES_MAX", 20 * verdicts.CASE_BYTES)
    (agent,) = agents(lab, 1)
    for number in range(100):
        path = f"blobs/sha256:{number:064x}"
        ask(agent, path)
        tell(agent, path=path)
    assert len(lab.tracker.verdicts._cases) <= 20
    assert lab.tracker.verdicts._bytes <= verdicts.BYTES_MAX
    ask(agent, path)
    assert is_allowed(agent), "the last ones are"
    agent.leave()
    assert not lab.tracker.verdicts._open


@in_loop
async def test_a_tag_that_a_person_wants_forgotten_is_asked_for_anew(lab: Lab) -> None:
    first, second, third = agents(lab, 3)
    for agent in (first, second):
        ask(agent, TAG)
        tell(agent, path=TAG, body=BODY)
    assert lab.tracker.verdicts.forget(*REPOSITORY, "2") == 0
    assert lab.tracker.verdicts.forget(*REPOSITORY, "1") == 1
    ask(third, TAG)
    assert is_asked(third)
    assert judged(third)[-1].body == b""


@in_loop
async def test_registries_that_hang_leave_threads_for_the_others(lab: Lab) -> None:
    """FAULTS 85: what would take more of them than one registry's share each node asks for itself at once."""
    answer = threading.Event()

    def blob_size(registry: str, *_: str) -> int | None:
        if registry == "hangs.test":
            answer.wait(60)
        return 1

    lab.tracker.verdicts._blob_size = blob_size
    many, (other,) = agents(lab, 200), [Agent(lab, "other")]
    for number, agent in enumerate(many):
        agent.say(messages.AskVerdict(1, "hangs.test", "team/app", f"blobs/sha256:{number:064x}", b""))
    assert sum(map(is_asked, many)) == 200 - verdicts.ORIGIN_THREADS_MAX // verdicts.REGISTRIES_MIN
    ask(other, who=b"")
    await lab.until(lambda: is_allowed(other))
    answer.set()
    await lab.until(lambda: all(map(judged, many)))
    assert not lab.tracker.verdicts._asked_here


@in_loop
async def test_no_node_says_for_others_what_is_public(lab: Lab) -> None:
    """A lie would open a private blob to every pod of the cluster."""

    def blob_size(*_: str) -> int | None:
        raise OriginError(401, "not for everybody")

    lab.tracker.verdicts._blob_size = blob_size
    liar, other = agents(lab, 2)
    ask(liar, who=b"")
    await lab.until(lambda: is_asked(liar))
    tell(liar, who=b"")
    ask(other, who=b"")
    await lab.until(lambda: is_asked(other))
    assert not is_allowed(other)
    ask(other, TAG, who=b"", request=2)
    assert is_asked(other), "and manifests are asked for elsewhere"
