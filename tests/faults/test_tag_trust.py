"""FAULTS 84: what a tag meant earlier is used when this node's own question has failed at the registry, and as an old answer."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.origin import client, destinations
from agent.origin.shares import Shares
from agent.registry import endpoint as endpoint_module
from agent.registry.endpoint import BESIDE_SECONDS, HEAD_SECONDS_MAX
from agent.swarm import messages
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest
from hack.origin import Fault
from supernode.tags import resolver
from supernode.tags.recovery import ANSWER_SECONDS_MAX
from tests.endpoint import Answer, Endpoint, runtime_at_node
from tests.swarm import REPOSITORY, Lab, Node, RawAgent, wait_until

MANIFEST = "/manifests/"
TRIES = 2
"""Of a question that hears 503."""
LIE = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2, "lie": 1}')


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Where each pull asks what the tag means."""
    with Lab(tmp_path, tag_interval=0.0) as lab:
        yield lab


def old_at_the_supernode(lab: Lab) -> Node:
    """The supernode remembers what the tag meant; the node that it is for does not."""
    lab.push(b"old")
    assert not lab.node().resolve("1").stale
    return lab.node()


def is_stale(answer: Answer) -> bool:
    return "Warning" in answer.headers


@pytest.mark.parametrize(("status", "times"), [(429, 1), (503, TRIES)])
def test_a_registry_that_fails_the_supernode_once_is_asked_by_the_node_itself(lab: Lab, status: int, times: int) -> None:
    """FAULTS 84."""
    node = old_at_the_supernode(lab)
    pushed = lab.push(b"new")
    lab.origin.fail(Fault(path=MANIFEST, status=status), times=times)
    with runtime_at_node(node, lab.origin) as runtime:
        answer = runtime.ask("manifests/1")
    assert (answer.status, answer.body, is_stale(answer)) == (200, pushed.manifest, False)


def test_a_registry_that_refuses_the_supernode_once_has_said_so_and_is_believed_anew_the_next_time(lab: Lab) -> None:
    """FAULTS 84: a refusal is an answer, after which nobody's memory counts."""
    node = old_at_the_supernode(lab)
    pushed = lab.push(b"new")
    lab.origin.fail(Fault(path=MANIFEST, status=401), times=TRIES)
    with runtime_at_node(node, lab.origin) as runtime:
        assert runtime.ask("manifests/1").status == 401
        answer = runtime.ask("manifests/1")
    assert (answer.status, answer.body, is_stale(answer)) == (200, pushed.manifest, False)


@pytest.mark.parametrize("status", [401, 404])
def test_what_the_registry_refuses_this_node_it_does_not_get_from_a_supernodes_memory(lab: Lab, status: int) -> None:
    """FAULTS 84, and 86."""
    node = old_at_the_supernode(lab)
    lab.origin.fail(Fault(path=MANIFEST, status=503), times=TRIES)  # to the supernode
    lab.origin.fail(Fault(path=MANIFEST, status=status))
    with runtime_at_node(node, lab.origin) as runtime:
        assert runtime.ask("manifests/1").status == status


@pytest.mark.parametrize("status", [429, 503])
def test_a_registry_that_fails_both_means_what_the_tag_meant_and_the_answer_says_so(lab: Lab, status: int) -> None:
    """FAULTS 84."""
    node = old_at_the_supernode(lab)
    lab.origin.fail(Fault(path=MANIFEST, status=status))
    asked = len(lab.origin.requests)
    with runtime_at_node(node, lab.origin) as runtime:
        answer = runtime.ask("manifests/1")
    assert (answer.status, is_stale(answer)) == (200, True)
    assert len(lab.origin.requests) - asked == 2 * (TRIES if status == 503 else 1), "by both"


def test_a_limit_of_this_node_is_no_failure_of_the_registry(lab: Lab) -> None:
    """FAULTS 84: whoever fills the node's limits would decide what a tag means there."""
    node = old_at_the_supernode(lab)
    lab.origin.fail(Fault(path=MANIFEST, status=503))
    lookups = node.client._destinations._lookups = Shares(1)
    with runtime_at_node(node, lab.origin) as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setattr(destinations, "LOOKUP_SECONDS_MAX", 0.1)
        place = lookups.take("10.0.0.1")
        assert place
        answer = runtime.ask("manifests/1")
        assert (answer.status, is_stale(answer)) == (504, False)
        place.give_back()
        answer = runtime.ask("manifests/1")
        assert (answer.status, is_stale(answer)) == (200, True)


def test_a_limit_of_the_supernode_is_none_either_and_no_node_is_asked_what_the_tag_meant(lab: Lab) -> None:
    """FAULTS 84."""
    node = old_at_the_supernode(lab)
    pushed = lab.push(b"new")
    lookups = lab.supernode._origin._destinations._lookups = Shares(1)
    place = lookups.take("10.0.0.1")
    with runtime_at_node(node, lab.origin) as runtime, pytest.MonkeyPatch.context() as patch:
        patch.setattr(destinations, "LOOKUP_SECONDS_MAX", 0.1)
        answer = runtime.ask("manifests/1")
        assert (answer.status, answer.body, is_stale(answer)) == (200, pushed.manifest, False)
    assert place
    place.give_back()


@pytest.mark.parametrize("age", [0.0, -1e9, float("nan"), float("inf")])
def test_what_nodes_say_is_never_a_fresh_answer_however_young_they_say_it_is(tmp_path: Path, age: float) -> None:
    """FAULTS 84: nor is it for whoever asks next, who would not ask the registry at all."""
    with Lab(tmp_path, tag_recall="any", tag_interval=3600.0) as lab, ExitStack() as stack:
        lab.origin.fail(Fault(status=503))
        witness = stack.enter_context(RawAgent.joined(lab.channels[0], "witness"))
        with ThreadPoolExecutor(1) as pool:
            answering = pool.submit(tell, witness, age)
            first = lab.node()
            with runtime_at_node(first, lab.origin) as runtime:
                answers = [runtime.ask("manifests/1")]
            witness.end()
            answering.result(30)
        pushed = lab.push(b"new")
        with runtime_at_node(lab.node(), lab.origin) as runtime:
            answers.append(runtime.ask("manifests/1"))
            assert all(answer.status != 200 or is_stale(answer) for answer in answers)
            lab.origin.heal()
            answer = runtime.ask("manifests/1")
        assert (answer.body, is_stale(answer)) == (pushed.manifest, False)


def tell(witness: RawAgent, age: float) -> None:
    while question := witness.hear_or_end(messages.Recall):
        body = LIE.body if question.body else b""
        witness.say(messages.Recalled(question.request, raw_digest(LIE.digest), age, LIE.media_type, body))


def test_a_registry_that_is_silent_to_both_costs_the_sum_of_what_it_may_take_and_then_the_old_answer_is_given(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 84. Without a margin for the node's own question, silence would be a way to a timeout at every pull."""
    monkeypatch.setattr(client, "ASK_SECONDS_MAX", 0.5)
    monkeypatch.setattr(endpoint_module, "ASK_SECONDS_MAX", 0.5)
    node = old_at_the_supernode(lab)
    lab.origin.fail(Fault(path=MANIFEST, delay_seconds=600))
    with runtime_at_node(node, lab.origin) as runtime:
        answer = runtime.ask("manifests/1")
    assert (answer.status, is_stale(answer)) == (200, True)


def test_what_nodes_remember_is_asked_for_while_the_registry_is_still_silent_to_the_supernode(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAULTS 84: a registry of which nothing is known may take a minute, and a runtime waits for half of one."""
    monkeypatch.setattr(resolver, "RECALL_SECONDS", 0.5)
    monkeypatch.setattr(endpoint_module, "ASK_SECONDS_MAX", 0.5)
    image = lab.push(b"old")
    for _ in range(2):
        assert not lab.node().resolve("1").stale
    lab.stop_supernode()
    lab.origin.fail(Fault(path=MANIFEST, delay_seconds=600))
    lab.start_supernode()
    wait_until(lambda: lab.state()["nodesTotal"] == 2)
    with runtime_at_node(lab.node(), lab.origin) as runtime:
        answer = runtime.ask("manifests/1")
    assert (answer.status, answer.body, is_stale(answer)) == (200, image.manifest, True)
    lab.origin.stop()


def test_what_a_supernode_and_then_the_node_may_take_is_less_than_a_runtime_waits() -> None:
    """FAULTS 84: the registry's silence to the supernode, the nodes' word and their manifest, and its silence to the node."""
    assert resolver.RECALL_SECONDS + 2 * ANSWER_SECONDS_MAX < BESIDE_SECONDS
    assert client.ASK_SECONDS_MAX < BESIDE_SECONDS
    assert BESIDE_SECONDS + client.ASK_SECONDS_MAX < HEAD_SECONDS_MAX


def test_in_a_healthy_cluster_one_asks_for_all(tmp_path: Path) -> None:
    """FAULTS 84: the own question is for old answers alone."""
    with Lab(tmp_path) as lab:
        image = lab.push(b"layer")
        with ExitStack() as stack:
            runtimes: list[Endpoint] = [stack.enter_context(runtime_at_node(lab.node(), lab.origin)) for _ in range(6)]
            answers = [runtime.ask("manifests/1") for runtime in runtimes]
        assert {answer.body for answer in answers} == {image.manifest}
        assert len(lab.origin.asked(f"{REPOSITORY}/manifests/")) == 1
