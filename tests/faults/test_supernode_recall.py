"""Names that a supernode has lost it learns from its agents while the origin is away, and believes no more than it must."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.values.credential import Credential
from agent.values.errors import OriginError
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest
from hack.origin import Fault, Image
from tests.swarm import PIECE, REPOSITORY, Lab, Node, RawAgent, noise, wait_until

BODY = noise(2 * PIECE)
OLD = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2, "old": 1}')
NEW = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2, "new": 1}')


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Where the word of one node is enough."""
    with Lab(tmp_path, tag_recall="any") as lab:
        yield lab


@pytest.fixture
def wary(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        yield lab


def lost(lab: Lab, nodes: int = 0) -> None:
    """The supernode forgets everything, and the origin is away."""
    lab.stop_supernode()
    lab.origin.stop()
    lab.start_supernode()
    wait_until(lambda: lab.state()["nodesTotal"] == nodes)


class Witness:
    """An agent that is asked what it knows, and says this."""

    def __init__(self, lab: Lab, name: str, manifest: Manifest | None, age: float = 60.0, body: bytes | None = None) -> None:
        self.asked: list[messages.Recall] = []
        self._manifest, self._age, self._body = manifest, age, body
        self._agent = RawAgent.joined(lab.channels[0], name)
        self._thread = threading.Thread(target=self._answer)

    def __enter__(self) -> Witness:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.end()
        self._thread.join()
        self._agent.sock.close()

    def _answer(self) -> None:
        while question := self._agent.hear_or_end(messages.Recall):
            self.asked.append(question)
            manifest = self._manifest
            if manifest is None:
                self._agent.say(messages.Recalled(question.request, None, 0.0, "", b""))
                continue
            body = (manifest.body if self._body is None else self._body) if question.body else b""
            self._agent.say(
                messages.Recalled(question.request, raw_digest(manifest.digest), self._age, manifest.media_type, body)
            )


def test_by_tag_a_newcomer_pulls_what_the_others_have_when_origin_and_cache_are_lost(lab: Lab) -> None:
    image = lab.push(BODY)
    veteran = lab.node()
    assert veteran.resolve("1").digest == image.digest
    for digest in image.blobs:
        veteran.pull(digest)
    wait_until(lambda: len(veteran.store.holdings()) == 2)
    lost(lab, nodes=1)
    newcomer = lab.node()
    manifest = newcomer.resolve("1")
    assert (manifest.body, manifest.stale) == (image.manifest, True)
    for digest in manifest.lists():
        assert newcomer.pull(digest) == image.blobs[digest]


def test_by_digest_too(lab: Lab) -> None:
    image = lab.push(BODY)
    lab.node().resolve(image.digest)
    lost(lab, nodes=1)
    assert lab.node().resolve(image.digest).body == image.manifest


def test_what_was_learned_is_kept_and_asked_for_no_more(lab: Lab) -> None:
    lost(lab)
    with Witness(lab, "witness", OLD) as witness:
        for _ in range(3):
            assert lab.node().resolve("1").digest == OLD.digest
        assert len(witness.asked) == 2, "once for the digest, once for the manifest"


def test_when_the_origin_is_back_its_word_counts_again(lab: Lab) -> None:
    lost(lab)
    with Witness(lab, "witness", OLD):
        assert lab.node().resolve("1").stale
        lab.origin.start()
        image = lab.origin.push(REPOSITORY, "1", Image.of([BODY]))
        wait_until(lambda: lab.node().resolve("1").digest == image.digest)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_the_origin_refuses_nobody_is_asked_for(lab: Lab, status: int) -> None:
    lab.origin.fail(Fault(status=status))
    with Witness(lab, "witness", OLD) as witness:
        with pytest.raises(OriginError):
            lab.node().resolve("1")
        assert witness.asked == []


def test_what_most_agents_say_counts(lab: Lab) -> None:
    lost(lab)
    with ExitStack() as stack:
        for number, manifest in enumerate([OLD, OLD, NEW, None]):
            stack.enter_context(Witness(lab, f"witness-{number}", manifest, age=10.0 if manifest is NEW else 60.0))
        assert lab.node().resolve("1").digest == OLD.digest


def test_a_lone_nodes_word_decides_no_tag_and_the_word_of_two_does(wary: Lab) -> None:
    """FAULTS 84: who decides what a tag means runs code in the pods of others."""
    lost(wary)
    with Witness(wary, "liar", NEW, age=1.0):
        with pytest.raises(OriginError):
            wary.node().resolve("1")
        with Witness(wary, "honest", OLD), pytest.raises(OriginError):
            wary.node().resolve("1")
        with Witness(wary, "honest", OLD), Witness(wary, "honest-too", OLD):
            manifest = wary.node().resolve("1")
    assert (manifest.digest, manifest.stale) == (OLD.digest, True)


@pytest.mark.parametrize("status", [401, 403])
def test_a_name_that_was_refused_to_anonymous_meanwhile_is_recalled_for_nobody(lab: Lab, status: int) -> None:
    """FAULTS 86."""
    early, late = lab.node(), lab.node()
    lab.push(BODY)
    early.manifests.remember(lab.origin.address, REPOSITORY, "1", None, OLD, age=60.0)
    lab.origin.fail(Fault(status=status))
    with pytest.raises(OriginError):
        late.manifests.resolve(lab.origin.address, REPOSITORY, "1")
    lost(lab, nodes=2)
    with pytest.raises(OriginError):
        lab.node().resolve("1")
    with pytest.raises(OriginError, match="refused it when it was asked last") as refused:
        late.manifests.resolve(lab.origin.address, REPOSITORY, "1")
    assert refused.value.status == 401


def test_a_name_that_anonymous_may_read_again_is_recalled_again(lab: Lab) -> None:
    early, late = lab.node(), lab.node()
    lab.origin.fail(Fault(status=401))
    with pytest.raises(OriginError):
        early.manifests.resolve(lab.origin.address, REPOSITORY, "1")
    time.sleep(0.01)
    late.manifests.remember(lab.origin.address, REPOSITORY, "1", None, OLD)
    lost(lab, nodes=2)
    assert lab.node().resolve("1").digest == OLD.digest


def test_of_a_digest_the_word_of_one_is_enough_since_it_proves_itself(wary: Lab) -> None:
    lost(wary)
    with Witness(wary, "witness", OLD):
        assert wary.node().resolve(OLD.digest).body == OLD.body


def test_of_two_that_as_many_say_the_younger_counts(lab: Lab) -> None:
    lost(lab)
    with Witness(lab, "a", OLD, age=60.0), Witness(lab, "b", NEW, age=10.0):
        assert lab.node().resolve("1").digest == NEW.digest


@pytest.mark.parametrize("body", [b"", b"something else", b"x" * (4 << 20)])
def test_a_manifest_that_is_not_what_was_named_is_not_believed_and_the_next_witness_is(lab: Lab, body: bytes) -> None:
    lost(lab)
    with Witness(lab, "liar", OLD, age=1.0, body=body):
        with pytest.raises(OriginError):
            lab.node().resolve("1")
        with Witness(lab, "honest", OLD, age=60.0):
            assert lab.node().resolve("1").body == OLD.body


def test_when_nobody_knows_the_origins_silence_is_the_answer(lab: Lab) -> None:
    lost(lab)
    with Witness(lab, "witness", None), pytest.raises(OriginError, match="cannot be reached") as failed:
        lab.node().resolve("1")
    assert failed.value.status == 502


def test_an_agent_that_does_not_answer_is_not_waited_for(lab: Lab) -> None:
    lost(lab)
    with RawAgent.joined(lab.channels[0], "silent"), Witness(lab, "witness", OLD):
        began = time.monotonic()
        assert lab.node().resolve("1").digest == OLD.digest
        assert time.monotonic() - began < 10


def test_answers_that_nobody_asked_for_say_nothing(lab: Lab) -> None:
    lost(lab)
    with RawAgent.joined(lab.channels[0], "eager") as eager, Witness(lab, "witness", OLD):
        for number in range(20):
            eager.say(messages.Recalled(number, raw_digest(NEW.digest), 0.0, NEW.media_type, NEW.body))
        assert lab.node().resolve("1").digest == OLD.digest


def test_what_a_credential_was_told_is_told_to_no_supernode(lab: Lab) -> None:
    node: Node = lab.node()
    node.manifests.remember(lab.origin.address, REPOSITORY, "1", Credential("alice", "s3cret"), OLD)
    lost(lab, nodes=1)
    with pytest.raises(OriginError):
        lab.node().resolve("1")


def test_what_is_too_old_to_be_used_is_not_told(lab: Lab) -> None:
    node = lab.node()
    node.manifests.remember(lab.origin.address, REPOSITORY, "1", None, OLD, age=4000.0)
    lost(lab, nodes=1)
    with pytest.raises(OriginError):
        lab.node().resolve("1")
    node.manifests.remember(lab.origin.address, REPOSITORY, "1", None, OLD, age=3000.0)
    assert lab.node().resolve("1").stale
