"""Which nodes are alive, and which of them are no source for now and why.

Kept by the node's name, so that leaving and coming back wipes nothing off the slate. A peer that sent a wrong piece is
quarantined at once, one that fails several takers within the quarantine time too; each further time is twice as long, up to an
hour. A taker may lie as well: failures count only when two takers saw them, and on one taker's word alone only a few
peers are held at a time. Pure: time is an argument, and nothing here knows a socket or the scheduler.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.wire import CORRUPT, MISSING


@dataclass(frozen=True)
class HealthSettings:
    failures_max: int = 5
    """Failures within the quarantine time that make a peer no source any more."""
    quarantine_seconds: float = 30.0
    """How long a first quarantine lasts; also the time over which failures are counted."""
    lease_seconds: float = 30.0
    """How long a node counts as alive after it was last heard."""
    quarantine_seconds_max: float = 3600.0
    failure_share_min: float = 0.1
    """Failures are forgiven while they are a smaller share of what the peer was asked for: a busy source is not a bad one."""
    missing_weight: float = 0.2
    """A piece that was not there counts as this much of a failure: the peer may have evicted it in good faith."""
    word_max: int = 3
    """Peers that are quarantined at a time on the word of one taker alone; never more than a quarter of the nodes, but one."""
    forgive_seconds: float = 3600.0
    """A clean time of this length makes the next quarantine one step shorter."""
    records_max: int = 100_000


@dataclass(frozen=True)
class Expired:
    """The node was not heard for the lease time."""

    name: str


@dataclass(frozen=True)
class Quarantine:
    """The node is no source until `until`, on the scale of `now`; `reason` is for people."""

    name: str
    reason: str
    since: float
    until: float


@dataclass(frozen=True)
class Release:
    """The node's quarantine is over."""

    name: str


Decision = Expired | Quarantine | Release


@dataclass
class _Record:
    heard: float | None = None
    """When it was last heard; None while it is away."""
    window: float = 0.0
    delivered: int = 0
    failures: dict[str, float] = field(default_factory=dict)
    liars: dict[str, float] = field(default_factory=dict)
    strikes: int = 0
    quarantine: Quarantine | None = None
    accuser: str | None = None


class Health:
    """One owner calls it; its views are read by the same owner."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._records: dict[str, _Record] = {}

    def heard(self, name: str, now: float) -> None:
        """The node said something: it is there for another lease time."""
        self._record(name).heard = now

    def left(self, name: str, now: float) -> None:
        """The node went away in an orderly way, or its connection did. Its slate stays."""
        if name in self._records:
            self._records[name].heard = None

    def delivered(self, name: str, now: float) -> None:
        """`name` gave a taker a piece that was right."""
        self._record(name).delivered += 1

    def failed(self, name: str, reporter: str, verdict: int, now: float) -> Quarantine | None:
        """`reporter` got no piece from `name`, or a wrong one. The quarantine that follows from it, if one does."""
        record = self._record(name)
        if record.quarantine is not None:
            return None
        if verdict == CORRUPT:
            return self._hold(name, record, f"sent a wrong piece to {reporter}", now)
        record.failures[reporter] = record.failures.get(reporter, 0.0) + (
            self._settings.missing_weight if verdict == MISSING else 1.0
        )
        if sum(record.failures.values()) < self._settings.failures_max:
            return None
        return self._hold(name, record, "failed too often", now)

    def tick(self, now: float) -> list[Decision]:
        """What time has brought: leases that ran out, quarantines that are over."""
        decisions: list[Decision] = []
        for name, record in self._records.items():
            if record.heard is not None and now - record.heard >= self._settings.lease_seconds:
                record.heard = None
                decisions.append(Expired(name))
            if record.quarantine is not None and now >= record.quarantine.until:
                record.quarantine = None
                decisions.append(Release(name))
        return decisions

    def quarantine(self, name: str) -> Quarantine | None:
        """The quarantine that a node is in; to be asked when a node joins."""
        record = self._records.get(name)
        return record.quarantine if record else None

    @property
    def quarantines(self) -> list[Quarantine]:
        return [record.quarantine for record in self._records.values() if record.quarantine is not None]

    def _record(self, name: str) -> _Record:
        return self._records.setdefault(name, _Record())

    def _hold(self, name: str, record: _Record, reason: str, now: float) -> Quarantine:
        seconds = min(self._settings.quarantine_seconds * 2**record.strikes, self._settings.quarantine_seconds_max)
        record.strikes += 1
        record.failures.clear()
        record.quarantine = Quarantine(name, reason, now, now + seconds)
        return record.quarantine


__all__ = ["Decision", "Expired", "Health", "HealthSettings", "Quarantine", "Release"]
