"""Which nodes are alive, and which of them are no source for now, and why.

The slate is kept by the node's name, so that leaving and coming back wipes nothing off. A peer that sent a wrong piece is
quarantined at once, and so is one that failed two takers often within the quarantine time; each further quarantine is twice as
long, up to an hour. A taker may lie as well, or be broken itself: alone it brings nobody into quarantine by failures, and by
wrong pieces only a few at a time; beyond that a second witness is needed. Takers that complain about many whom hardly anybody
else complains about are not believed any more, and whatever they say, no more than a quarter of the nodes is out at once. A
person may put a node into quarantine and take it out. Pure: time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.swarm.messages import CORRUPT, MISSING, STALLED, UNREACHABLE


@dataclass(frozen=True)
class HealthSettings:
    failures_max: int = 5
    """Failures within the quarantine time that make a peer no source any more."""
    quarantine_seconds: float = 30.0
    """How long a first quarantine lasts; also the time over which failures and accusations are remembered."""
    lease_seconds: float = 30.0
    """How long a node counts as alive after it was last heard."""
    quarantine_seconds_max: float = 3600.0
    failure_share_min: float = 0.1
    """Failures are overlooked while they are a smaller share of what the peer was asked for: a busy source is not a bad one."""
    missing_weight: float = 0.2
    """A piece that was not there counts as this much of a failure: the peer may have evicted it in good faith."""
    word_share_max: float = 0.6
    """One taker can bring a peer no nearer than this to `failures_max`: it takes two."""
    held_per_accuser_max: int = 3
    """Peers that one taker's word alone keeps in quarantine at a time; at most a quarter of all nodes, or one."""
    out_share_max: float = 0.25
    """Of all nodes, who may be in quarantine at once; one may in any case."""
    complaints_max: int = 64
    """Peers that one taker may complain about within the quarantine time and be believed; at most a quarter of all nodes, or
    `held_per_accuser_max`. Those that as many as `confirmed_by` takers complain about do not count."""
    confirmed_by: int = 3
    forgive_seconds: float = 3600.0
    """So long after a quarantine the next one is a step shorter, and a taker that was not believed is believed again."""
    witnesses_max: int = 64
    """Takers whose reports about one peer are kept."""
    records_max: int = 100_000
    """Names that are known. Beyond that, those that left are forgotten."""


@dataclass(frozen=True)
class Quarantine:
    """The node is no source until `until`, on the scale of `now`; `reason` is for people."""

    name: str
    reason: str
    since: float
    until: float
    by_hand: bool = False
    """A person said so: no share of the nodes ends it early, and no taker that lied."""


SELF = "the supernode itself"
"""As a reporter: of a holder that lied to it. No node has a name with spaces."""

_WORDS = {UNREACHABLE: "could not be reached", STALLED: "stalled", MISSING: "lacked pieces that it had announced"}


@dataclass
class _Record:
    """A node's slate. What counts within the quarantine time is counted in windows of that length."""

    heard_at: float | None = None
    """When it was last heard; None while it is away."""
    left_at: float = 0.0
    window_at: float = 0.0
    delivered: int = 0
    failures: dict[str, float] = field(default_factory=dict)
    """By taker, the weight of what it reported."""
    verdicts: set[int] = field(default_factory=set)
    accusers: dict[str, float] = field(default_factory=dict)
    """Takers that got a wrong piece from it, and when."""
    quarantine: Quarantine | None = None
    held_by: str | None = None
    """The taker on whose word alone it is in quarantine."""
    strikes: int = 0
    """Quarantines that are not forgiven yet."""
    free_at: float = 0.0
    """When its last quarantine ended, or the last strike was forgiven."""

    @property
    def clean(self) -> bool:
        return not (self.strikes or self.quarantine or self.failures or self.accusers)

    def wipe(self) -> None:
        self.delivered = 0
        self.failures.clear()
        self.verdicts.clear()
        self.accusers.clear()


class Health:
    """One owner calls it, and reads its views."""

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self._records: dict[str, _Record] = {}
        self._held: dict[str, set[str]] = {}
        """By taker, the peers that its word alone keeps in quarantine."""
        self._complaints: dict[str, dict[str, float]] = {}
        """By taker, the peers that it complains about, and when it last did."""
        self._disbelieved: dict[str, float] = {}
        """Takers whose word counts for nothing, and until when."""
        self._present = 0
        self._out = 0
        """Nodes in quarantine."""

    def heard(self, name: str, now: float) -> None:
        """The node said something: it is there for another lease time."""
        record = self._record(name)
        if record.heard_at is None:
            self._present += 1
        record.heard_at = now

    def left(self, name: str, now: float) -> None:
        """The node went away, or its connection did. Its slate stays."""
        record = self._records.get(name)
        if record is not None:
            self._depart(record, now)

    def delivered(self, name: str, now: float) -> None:
        """`name` gave a taker a piece that was right."""
        record = self._record(name)
        self._turn_window(record, now)
        record.delivered += 1

    def failed(self, name: str, reporter: str, verdict: int, now: float) -> Quarantine | None:
        """`reporter` got no piece from `name`, or a wrong one. The quarantine that follows from it, if one does."""
        if not self.believes(reporter, now):
            return None
        record = self._record(name)
        self._turn_window(record, now)
        self._complaints.setdefault(reporter, {})[name] = now
        if reporter != SELF and self._complains_too_much(reporter, now):
            self._disbelieve(reporter, now)
            return None
        if verdict == CORRUPT:
            return self._accused(name, record, reporter, now)
        if record.quarantine or (reporter not in record.failures and len(record.failures) >= self._settings.witnesses_max):
            return None
        return self._failed(name, record, reporter, verdict, now)

    def withdraw(self, name: str, reporter: str, now: float) -> bool:
        """The wrong piece that `reporter` got from `name` was none. Whether a quarantine is over that had no other ground."""
        self._complaints.get(reporter, {}).pop(name, None)
        record = self._records.get(name)
        if record is None or record.accusers.pop(reporter, None) is None:
            return False
        if not record.quarantine or record.quarantine.by_hand or record.accusers or len(record.failures) > 1:
            return False
        self._free(name, record, now)
        record.strikes -= 1
        return True

    def tick(self, now: float) -> tuple[list[str], list[str]]:
        """The nodes whose lease has run out, and those whose quarantine is over."""
        settings = self._settings
        expired, released = [], []
        for name, record in self._records.items():
            if record.heard_at is not None and now - record.heard_at >= settings.lease_seconds:
                self._depart(record, now)
                expired.append(name)
            if record.quarantine and now >= record.quarantine.until:
                self._free(name, record, now)
                released.append(name)
            if record.strikes and not record.quarantine and now - record.free_at >= settings.forgive_seconds:
                record.strikes -= 1
                record.free_at = now
            self._turn_window(record, now)
        if self._out > self._out_max:  # nodes have left, and those that are in quarantine are too many of the others
            judged = (quarantine for quarantine in self.quarantines if not quarantine.by_hand)
            longest = sorted(judged, key=lambda quarantine: quarantine.since)
            for quarantine in longest[: self._out - self._out_max]:
                self._free(quarantine.name, self._records[quarantine.name], now)
                released.append(quarantine.name)
        self._disbelieved = self.disbelieved(now)
        for reporter in list(self._complaints):
            self._forget_complaints(reporter, now)
        if len(self._records) > settings.records_max:
            self._forget()
        return expired, released

    def hold_by_hand(self, name: str, reason: str, seconds: float, now: float) -> Quarantine:
        """A person takes the node out, present or not, whatever share of the others is out. It is no strike."""
        record = self._record(name)
        self._release_accuser(name, record)
        self._out += record.quarantine is None
        record.quarantine = Quarantine(name, reason, now, now + seconds, by_hand=True)
        return record.quarantine

    def release(self, name: str, now: float) -> bool:
        """A person ends a quarantine, whoever began it. False: there was none."""
        record = self._records.get(name)
        if record is None or record.quarantine is None:
            return False
        self._free(name, record, now)
        return True

    def believes(self, reporter: str, now: float) -> bool:
        """Whether what this taker says of others counts."""
        return now >= self._disbelieved.get(reporter, now)

    def disbelieved(self, now: float) -> dict[str, float]:
        """The takers whose word counts for nothing, and until when."""
        return {name: until for name, until in self._disbelieved.items() if now < until}

    def quarantine(self, name: str) -> Quarantine | None:
        """The quarantine that a node is in; to be asked when a node joins."""
        record = self._records.get(name)
        return record.quarantine if record else None

    @property
    def quarantines(self) -> list[Quarantine]:
        return [record.quarantine for record in self._records.values() if record.quarantine]

    # Verdicts.

    def _failed(self, name: str, record: _Record, reporter: str, verdict: int, now: float) -> Quarantine | None:
        settings = self._settings
        weight = settings.missing_weight if verdict == MISSING else 1.0
        record.failures[reporter] = record.failures.get(reporter, 0.0) + weight
        record.verdicts.add(verdict)
        most = settings.failures_max * settings.word_share_max
        failures = sum(min(weight, most) for weight in record.failures.values())
        if len(record.failures) < 2 or failures < settings.failures_max:
            return None
        if failures < settings.failure_share_min * (failures + record.delivered):
            return None
        how = " and ".join(_WORDS[verdict] for verdict in sorted(record.verdicts) if verdict in _WORDS)
        return self._hold(name, record, f"{how} for {len(record.failures)} nodes within {settings.quarantine_seconds:.0f} s", now)

    def _accused(self, name: str, record: _Record, reporter: str, now: float) -> Quarantine | None:
        """A wrong piece is proof for the taker that got it, and for us as far as we believe that taker."""
        if reporter in record.accusers or len(record.accusers) < self._settings.witnesses_max:
            record.accusers[reporter] = now
        witnesses = sorted(record.accusers)
        if record.quarantine:
            if len(witnesses) > 1:
                self._release_accuser(name, record)  # not on one word alone any more
            return None
        if len(witnesses) == 1:
            held = self._held.setdefault(reporter, set())
            if len(held) >= min(self._settings.held_per_accuser_max, max(1, self._present // 4)):
                return None
            held.add(name)
            record.held_by = reporter
        return self._hold(name, record, f"sent wrong bytes to {', '.join(witnesses[:3])}", now)

    @property
    def _out_max(self) -> int:
        return max(1, int(self._present * self._settings.out_share_max))

    def _hold(self, name: str, record: _Record, reason: str, now: float) -> Quarantine | None:
        if self._out >= self._out_max:
            self._release_accuser(name, record)
            return None
        self._out += 1
        settings = self._settings
        seconds = min(settings.quarantine_seconds * 2.0 ** min(record.strikes, 32), settings.quarantine_seconds_max)
        record.strikes += 1
        record.quarantine = Quarantine(name, reason, now, now + seconds)
        return record.quarantine

    def _free(self, name: str, record: _Record, now: float) -> None:
        """The quarantine is over, and what led to it is paid for; the strike remains."""
        self._release_accuser(name, record)
        record.quarantine = None
        self._out -= 1
        record.free_at = now
        record.wipe()

    def _release_accuser(self, name: str, record: _Record) -> None:
        held = self._held.get(record.held_by or "")
        if held is not None:
            held.discard(name)
            if not held:
                del self._held[record.held_by or ""]
        record.held_by = None

    # Takers.

    def _complains_too_much(self, reporter: str, now: float) -> bool:
        settings = self._settings
        most = max(settings.held_per_accuser_max, min(settings.complaints_max, self._present // 4))
        if len(self._complaints[reporter]) <= most:
            return False
        self._forget_complaints(reporter, now)
        voices = [self._voices(name) for name in self._complaints.get(reporter, ())]
        return sum(len(others | {reporter}) < settings.confirmed_by for others in voices) > most

    def _voices(self, name: str) -> set[str]:
        """Who complains about a peer."""
        record = self._records.get(name)
        return {*record.failures, *record.accusers} if record else set()

    def _disbelieve(self, reporter: str, now: float) -> None:
        """What a taker has said counts for nothing, and neither does what it says from now on."""
        settings = self._settings
        self._disbelieved[reporter] = now + settings.forgive_seconds
        for name in self._complaints.pop(reporter, {}):
            record = self._records.get(name)
            if record is None:
                continue
            record.failures.pop(reporter, None)
            record.accusers.pop(reporter, None)
            judged = record.quarantine is not None and not record.quarantine.by_hand
            if record.quarantine and judged and not record.accusers and len(record.failures) < 2:
                record.quarantine = replace(record.quarantine, until=now)  # the next tick releases it
                record.strikes -= 1

    def _forget_complaints(self, reporter: str, now: float) -> None:
        since = now - self._settings.quarantine_seconds
        kept = {name: at for name, at in self._complaints[reporter].items() if at > since}
        if kept:
            self._complaints[reporter] = kept
        else:
            del self._complaints[reporter]

    # Records.

    def _record(self, name: str) -> _Record:
        record = self._records.get(name)
        if record is None:
            record = self._records[name] = _Record()
        return record

    def _depart(self, record: _Record, now: float) -> None:
        if record.heard_at is not None:
            record.heard_at, record.left_at = None, now
            self._present -= 1

    def _turn_window(self, record: _Record, now: float) -> None:
        """Forget what is older than the quarantine time. While in quarantine, nothing is."""
        if now - record.window_at < self._settings.quarantine_seconds or record.quarantine:
            return
        record.window_at = now
        record.wipe()

    def _forget(self) -> None:
        """Names come from outside: those go first that have nothing on the slate and have been away longest."""
        away = [(not record.clean, record.left_at, name) for name, record in self._records.items() if record.heard_at is None]
        for _, _, name in sorted(away)[: len(self._records) - self._settings.records_max]:
            self._release_accuser(name, self._records[name])
            self._out -= self._records[name].quarantine is not None
            del self._records[name]
