"""Agents that say whatever they like, in any order, about anything, and seeds that end in every way."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.errors import DarnerError, DigestError, OriginError
from supernode.api import describe
from supernode.seeder import AbandonedError, SeedRequest
from tests.tracker import LAYOUT, Agent, Lab, digest_of, open_nothing

DIGESTS = [bytes([number]) * 32 for number in range(4)]
NAMES = [f"agent-{number}" for number in range(5)]
STEPS = 600


class Chaos:
    """One step after the other, each of which anybody might take."""

    def __init__(self, lab: Lab, rng: random.Random) -> None:
        self.lab = lab
        self.rng = rng
        self.agents = [self._agent() for _ in range(4)]
        self.everybody = list(self.agents)
        self.seeded: dict[str, set[int]] = {}
        self._sized: set[int] = set()

    def step(self) -> None:
        steps = [self._say, self._seed, self._come, self._leave, self._pass_time]
        self.rng.choices(steps, weights=[75, 18, 3, 2, 2])[0]()

    def _agent(self) -> Agent:
        return Agent(self.lab, self.rng.choice(NAMES), *self.rng.sample(DIGESTS, self.rng.randrange(3)))

    def _come(self) -> None:
        """A new agent, or one that comes back under its name."""
        agent = self.agents[self.rng.randrange(4)] = self._agent()
        self.everybody.append(agent)

    def _leave(self) -> None:
        self.rng.choice(self.agents).leave()

    def _pass_time(self) -> None:
        for task in list(self.lab.tracker.seeds.tasks.values()):
            self.lab.tracker.seeds._look_at(task, time.monotonic() + self.rng.choice([0, 0, 100]))

    def _number(self, *likely: int) -> int:
        """Of a task, a node or a request: one of the likely ones, or one that is not."""
        return self.rng.choice([*likely] * 4 + [*range(8), self.rng.randrange(40), 1 << 39])

    def _report(self, agent: Agent) -> messages.Report:
        """True in part."""
        rng, tasks = self.rng, [task.task for task in agent.heard(messages.Task)]
        granted = agent.granted or [messages.Granted(3, b"d" * 32, 3, 3)]
        done = []
        for piece in rng.choices(granted, k=rng.randrange(5)):
            number = rng.choice([piece.piece, rng.randrange(12)])
            done.append(messages.Done(number, self._number(piece.source, piece.alternative), rng.randrange(9), rng.randrange(5)))
        return messages.Report(self._number(*tasks), done, rng.choice([0, 4, 16, 1 << 39]), [self._number()])

    def _say(self) -> None:
        rng, agent, digest = self.rng, self.rng.choice(self.agents), self.rng.choice(DIGESTS)
        have, held = rng.randbytes(rng.randrange(3)), messages.Holding(digest, rng.choice([0, 5, LAYOUT.size]))
        choices: list[messages.FromAgent] = [
            messages.Open(self._number(), digest, "registry.test", "team/app", have, [self._number()]),
            messages.Close(self._number()),
            messages.Holds(held, rng.random() < 0.5),
            messages.Resolve(self._number(), "registry.test", "team/app", str(self._number())),
            self._report(agent),
        ]
        agent.say(rng.choices(choices, weights=[2, 1, 1, 1, 6])[0])

    def _seed(self) -> None:
        if not self.lab.wanted:
            return
        at = self.rng.randrange(len(self.lab.wanted))
        wanted = self.lab.wanted[at]
        says = self.rng.randrange(10)
        if at not in self._sized:
            self._sized.add(at)
            wanted.on_size(Blob(wanted.digest, LAYOUT, open_nothing()))
        elif says < 8:
            piece = self.rng.randrange(LAYOUT.count)
            self.seeded.setdefault(wanted.digest, set()).add(piece)
            wanted.on_piece(piece, digest_of(piece))
        elif says == 8:
            wanted.on_liar(self.rng.choice(NAMES))
        else:
            self._end(wanted)

    def _end(self, wanted: SeedRequest) -> None:
        ends: list[DarnerError | None] = [None, OriginError(502, "no"), DigestError("no"), AbandonedError("no")]
        wanted.on_end(self.rng.choice(ends))


@pytest.mark.parametrize("seed", range(20))
def test_nothing_that_anybody_says_breaks_it_and_no_piece_is_granted_that_could_not_be_checked(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        lab = Lab(monkeypatch)
        tracker = lab.tracker
        chaos = Chaos(lab, random.Random(seed))
        for _ in range(STEPS):
            chaos.step()
            await asyncio.sleep(0)
            describe(tracker)
        granted = [piece for agent in chaos.everybody for piece in agent.granted]
        assert granted, "or the test shows nothing"
        assert all(piece.digest == digest_of(piece.piece) for piece in granted)
        assert {piece.piece for piece in granted} <= set().union(*chaos.seeded.values())
        assert set(tracker.seeds._by_digest.values()) <= set(tracker.seeds.tasks.values())
        assert {session.name: session for session in tracker.sessions.values()} == tracker._by_name
        for task in tracker.seeds.tasks.values():
            assert task.takers <= set(tracker.sessions.values())
            assert all(task.number in session.in_flight for session in task.takers)
        lab.stop()
        await asyncio.get_running_loop().run_in_executor(None, lab.join)

    asyncio.run(run())
