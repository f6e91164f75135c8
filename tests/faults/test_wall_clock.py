"""FAULTS.md, row 43: somebody sets the wall clock, by a day either way, while blobs arrive and tags, leases and tokens count."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from agent.process import steady
from agent.swarm import messages
from supernode.node_tokens import NodeTokens, TokenError
from tests.node_tokens import RSA, jwks, token
from tests.swarm import PIECE, Lab, noise

DAY = 86_400.0
BODY = noise(24 * PIECE + 99)
TREE = Path(__file__).resolve().parents[2]


class Clock:
    """The machine's wall clock, which can be set."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._now = time.time

    def __call__(self) -> float:
        return self._now() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "time", clock)
    return clock


both_ways = pytest.mark.parametrize("jump", [DAY, -DAY])


@both_ways
def test_a_download_goes_on_in_the_swarm_and_so_does_the_next_one(tmp_path: Path, clock: Clock, jump: float) -> None:
    """FAULTS 43."""
    (tmp_path / "key").write_text("k" * 32)
    lab = Lab(tmp_path, swarm_key_file=str(tmp_path / "key"))
    lab.clock = clock
    with lab:
        first, second, third = lab.node(clock=clock), lab.node(clock=clock), lab.node()
        digest = lab.push(BODY).layers[0]

        def set_clock(count: int) -> None:
            clock.ahead = jump if count else clock.ahead

        assert first.pull(digest, on_bytes=set_clock) == BODY
        assert clock.ahead == jump
        assert set(lab.pull_everywhere(digest, [second, third])) == {BODY}
        clock.ahead = -jump
        assert lab.node(clock=clock).pull(digest) == BODY
        verdicts = {verdict for node in lab.nodes for _, _, verdict in node.fetched}
        assert verdicts == {messages.DELIVERED}, "each ticket was good, and nobody was slow or silent"
        assert lab.origin.blob_bytes_sent == len(BODY)


@both_ways
def test_a_token_that_is_good_stays_good_and_one_that_is_over_stays_over(tmp_path: Path, clock: Clock, jump: float) -> None:
    """FAULTS 43. A clock that was wrong at the start and is set right is good from then on, too."""
    (tmp_path / "keys").write_text(jwks(one=RSA))
    good, over = token(), token(exp=int(time.time()) - 3600, iat=int(time.time()) - 7200, nbf=int(time.time()) - 7200)
    started_right = NodeTokens(str(tmp_path / "keys"), "darner-system/darner-agent", (time.time, steady(clock)))
    clock.ahead = jump
    started_wrong = NodeTokens(str(tmp_path / "keys"), "darner-system/darner-agent", (time.time, steady(clock)))
    assert started_right.check(good, "n1")
    clock.ahead = 0
    assert started_wrong.check(good, "n1")
    for tokens in (started_right, started_wrong):
        with pytest.raises(TokenError):
            tokens.check(over, "n1")


READERS = {
    "agent/origin/throttle.py": "Retry-After may be a date; what it asks for is cut to a day, and kept by the monotonic clock",
    "agent/process.py": "where the steady clock begins",
    "agent/registry/manifests.py": "what the caller passes is steady; ages of files are the file system's, in days",
    "agent/storage/disk.py": "ages of files are the file system's",
    "agent/storage/store.py": "ages of files are the file system's, in days",
    "agent/swarm/channel.py": "for a supernode that tells no clock",
    "agent/swarm/piece_client.py": "for tickets outside of a supernode's swarms",
    "agent/swarm/piece_server.py": "the same",
    "agent/swarm/supernodes.py": "one of several clocks on which a ticket may be good",
    "cli/doctor/gather.py": "a clock is what is asked for: how far a node's or a supernode's is off this machine's",
    "cli/doctor/probe.py": "the same, at the node",
    "cli/listing.py": "pauses end at a date, by the webhook's clock: shown to a person",
    "cli/status/overview.py": "certificates and pauses end at a date, and the last admission had one",
    "cli/sysdump.py": "files in an archive have dates",
    "supernode/app.py": "where the steady clock begins, and for tokens one of two clocks",
    "supernode/node_tokens.py": "a cluster's tokens end at a date; an own clock comes from the caller",
    "supernode/tracker/tracker.py": "what the caller passes is steady",
    "webhook/breaker/shared.py": "pauses are shared by replicas and end at a date: too early or late costs a second pull",
    "webhook/certificates/rotation.py": "certificates end at a date, by the clocks of API servers",
    "webhook/kube/events.py": "an event has a date",
    "webhook/kube/lease.py": "a date is written for people; nothing is decided by it",
    "webhook/revert/controller.py": "pods have dates of the API server's",
    "webhook/wiring.py": "the pauses' clock",
}
"""Modules that may read the wall clock, and for what."""


def test_the_wall_clock_is_read_where_a_date_is_meant_and_nowhere_else() -> None:
    """FAULTS 43: whatever takes time is measured by the monotonic clock."""
    found = {
        str(file.relative_to(TREE))
        for package in ("agent", "supernode", "webhook", "cli")
        for file in (TREE / package).rglob("*.py")
        if re.search(r"\btime\.time\b|\bdatetime\.(now|utcnow|today)\b|\btime\.time_ns\b", file.read_text())
    }
    assert found == READERS.keys()
