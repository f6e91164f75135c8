"""What a node could know about its swarm, noted beside the planner: the promises of the ladder are counted from these notes.

They are made from what the node hears and gets, and from no state of the planner, so that a planner which overlooks evidence, or
asks the origin without any, is found out.
"""

from __future__ import annotations

from math import inf

from agent.download.planner import (
    CARRIED_MIN,
    EVIDENCE_SECONDS,
    LEAVE_SECONDS,
    OPEN_SECONDS_MAX,
    PIECE_SECONDS_MAX,
    REFUSALS_MAX,
    REOPEN_SECONDS,
    TURN_SECONDS_MAX,
)
from agent.swarm import messages
from agent.values.address import Address

SLACK_SECONDS = 0.05
"""Messages have a latency."""


class Evidence:
    def __init__(self, now: float, *, is_silent: bool, is_slow: bool) -> None:
        """The supernode said nothing to this node lately, or did not get a blob for it in time."""
        self._is_slow = is_slow
        self._is_free = is_silent
        """The origin may be asked, for a reason that lasts."""
        self._heard_at = self._asked_at = now
        self._lost_at = now
        """Since when no supernode has been asked."""
        self._is_asked = False
        self._has_joined = False
        self._failed_at = inf
        """The first failure since the last piece."""
        self._failures = 0
        self._carried = 0
        """Pieces of the swarm since the origin's last one."""
        self._came_at = self._began_at = now
        self._useless_at = inf
        self._leave_asked_at = inf
        """The first time since the last answer."""
        self._has_leave = False
        self._leave_at = -inf
        self._runs: list[messages.Run] = []
        """What it was granted at its origin by the supernode that was asked last."""
        self._where: Address | None = None
        """The supernode that was asked last."""
        self.is_cut_off = False
        """A piece of another node did not come to it, and none has come since: then it has leave however many have."""
        self.refused_leave_at = -inf
        self.origin_failed_at = -inf

    # What happens.

    def opened(self, where: Address | None, now: float) -> None:
        """A supernode was asked, if there is one."""
        self._where = where
        self._heard_at = self._asked_at = now
        self._is_asked = where is not None
        self._has_joined = self._has_leave = False
        self._leave_asked_at = inf
        self._runs.clear()

    def asked_leave(self, now: float) -> None:
        self._leave_asked_at = min(self._leave_asked_at, now)

    def heard(self, message: messages.TaskMessage | None, now: float) -> None:
        self._heard_at = now
        match message:
            case None:
                self._is_asked = self._has_joined = False
                self._lost_at = now
            case messages.Task():
                self._has_joined, self._is_free = True, False
            case messages.TaskFailed():
                self._is_free = True
                self._lost_at = now
                self._is_asked = self._has_joined = False
            case messages.Run():
                self._runs.append(message)
            case messages.Leave(given=given):
                self._has_leave = given
                self._leave_at = now
                self._leave_asked_at = inf
                if not given:
                    self.refused_leave_at = now

    def fetched(self, verdict: int, now: float, *, from_node: bool, is_reported: bool = True) -> None:
        """A piece of the swarm came, or did not. If this swarm granted it it is reported, and from then on an answer is due."""
        if is_reported:
            self._heard_at = now
        if is_reported and from_node and verdict in (messages.UNREACHABLE, messages.STALLED):
            self.is_cut_off = True
        if verdict == messages.DELIVERED:
            self.is_cut_off &= not from_node
            self.came(now)
            self._carried += 1
            if self._carried >= CARRIED_MIN and self._has_joined:
                self._is_free = False
        else:
            self._failures += 1
            self._failed_at = min(self._failed_at, now)
            if self._failures >= REFUSALS_MAX:
                self._useless_at = min(self._useless_at, now)

    def origin_failed(self, now: float) -> None:
        """It was asked, and was away: who waits for the first byte may be told so."""
        self.origin_failed_at = now

    def streamed(self, now: float) -> None:
        self.came(now)
        self._carried = 0

    def came(self, now: float) -> None:
        self._came_at = now
        self._failures, self._failed_at, self._useless_at = 0, inf, inf

    # What follows.

    def may_ask_the_origin(self, now: float) -> bool:
        """Whether there is a reason. What is one stays one until a swarm is joined, or carries again."""
        since = SLACK_SECONDS
        if not self._is_asked:
            self._is_free = True  # no supernode: none at the start, or it is lost
        elif not self._has_joined:
            patience = EVIDENCE_SECONDS if self._is_slow else OPEN_SECONDS_MAX
            self._is_free |= now >= self._heard_at + EVIDENCE_SECONDS - since or now >= self._asked_at + patience - since
        is_silent = now >= self._heard_at + EVIDENCE_SECONDS - since
        is_unanswered = now >= self._leave_asked_at + LEAVE_SECONDS - since
        is_starved = now >= self._came_at + PIECE_SECONDS_MAX - since
        has_waited = self._failures > 0 and now >= self._came_at + TURN_SECONDS_MAX - since
        self._is_free |= self._has_leave or is_silent or is_unanswered or is_starved or has_waited
        return self._is_free

    def was_granted(self, first: int, end: int) -> bool:
        """Whether it is to get these pieces for itself and the others."""
        return any(run.first <= first and end <= run.end for run in self._runs)

    def leave_from(self, where: Address, since: float) -> bool:
        """Whether it has leave of this supernode, and got it not before that."""
        return self._has_leave and self._where == where and self._leave_at >= since

    def useless_since(self, now: float) -> float:
        """From when on it is evident that the swarm brings nothing; infinity while it is not."""
        silent = self._heard_at + EVIDENCE_SECONDS
        failing = max(self._failed_at, self._came_at + EVIDENCE_SECONDS)
        lost = inf if self._is_asked else self._lost_at + REOPEN_SECONDS
        slow = self._asked_at + EVIDENCE_SECONDS if self._is_slow and not self._has_joined else inf
        at = min(silent, failing, self._useless_at, lost, slow)
        return at if at <= now else inf
