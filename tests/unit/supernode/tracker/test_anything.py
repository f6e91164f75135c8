"""Agents that say whatever they like, in any order, about anything, and seeds that end in every way."""

from __future__ import annotations

import asyncio
import random
import time

import pytest

from agent.storage.blob import Blob
from agent.swarm import messages
from agent.values.errors import DarnerError, DigestError, OriginError
from hack.simulate.books import check_the_books
from supernode.overview import describe
from supernode.scheduler.events import Tick
from supernode.seeder import AbandonedError, NotHereError, SeedRequest
from tests.tracker import LAYOUT, Agent, Lab, digest_of, open_nothing

DIGESTS = [bytes([number]) * 32 for number in range(4)]
NAMES = [f"agent-{number}" for number in range(5)]
STEPS = 1000


class Chaos:
    """One step after the other, each of which anybody might take."""

    def __init__(self, lab: Lab, rng: random.Random) -> None:
        self.lab = lab
        self.rng = rng
        self.agents = [self._agent() for _ in range(4)]
        self.everybody = list(self.agents)
        self.seeded: dict[str, set[int]] = {}
        self.named: set[tuple[int, bytes]] = set()
        """What agents have said of pieces."""
        self._sized: set[int] = set()
        lab.cached = rng.sample(DIGESTS, rng.randrange(3))

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
        self.lab.tracker.seeds.look_at_all(time.monotonic() + self.rng.choice([0, 0, 5]))
        self.lab.tracker._schedule(Tick())
        sizes: list[int | DarnerError | None] = [*[LAYOUT.size] * 8, 5, 1 << 60, None, OriginError(502, "no")]
        self.lab.sizes = {digest: self.rng.choice(sizes) for digest in DIGESTS}

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

    def _brought(self, agent: Agent) -> messages.Brought:
        """Of a run, or of anything; seldom something that is wrong."""
        rng, runs = self.rng, agent.runs or [messages.Run(1, 0, LAYOUT.count + 2)]
        run, digest = rng.choice(runs), digest_of if rng.random() < 0.98 else (lambda piece: bytes([piece]) * 32)
        pieces = {piece: digest(piece) for piece in range(run.first, run.end)}
        self.named.update(pieces.items())
        return messages.Brought(self._number(run.task), pieces)

    def _run_ended(self, agent: Agent) -> messages.RunEnded:
        run = self.rng.choice(agent.runs or [messages.Run(1, 0, 1)])
        outcome = self.rng.choice([messages.RUN_WHOLE, messages.RUN_FAILED, messages.RUN_REFUSED, messages.RUN_TOO_MANY])
        return messages.RunEnded(self._number(run.task), run.first, outcome, self.rng.choice([0] * 9 + [60]))

    def _say(self) -> None:
        rng, agent, digest = self.rng, self.rng.choice(self.agents), self.rng.choice(DIGESTS)
        have, held = rng.randbytes(rng.randrange(3)), messages.Holding(digest, rng.choice([0, 5, LAYOUT.size]))
        choices: list[messages.FromAgent] = [
            messages.Open(
                self._number(),
                digest,
                rng.choice(["registry.test", "mirror.test"]),
                "team/app",
                have,
                [self._number()],
                rng.choice([0, LAYOUT.size]),
            ),
            messages.Close(self._number()),
            messages.Holds(held, rng.random() < 0.5),
            messages.Resolve(self._number(), "registry.test", "team/app", str(self._number())),
            self._report(agent),
            self._brought(agent),
            self._run_ended(agent),
            messages.Disputed(self._number(*[task.task for task in agent.heard(messages.Task)])),
            messages.AskLeave(self._number(*[task.task for task in agent.heard(messages.Task)])),
        ]
        agent.say(rng.choices(choices, weights=[6, 1, 1, 1, 8, 6, 1, 0.1, 0.5])[0])

    def _seed(self) -> None:
        if not self.lab.wanted:
            return
        at = self.rng.randrange(len(self.lab.wanted))
        wanted = self.lab.wanted[at]
        says = self.rng.randrange(20)
        if at not in self._sized:
            self._sized.add(at)
            wanted.on_size(Blob(wanted.digest, LAYOUT, open_nothing()))
        elif says < 18:
            piece = self.rng.randrange(LAYOUT.count)
            self.seeded.setdefault(wanted.digest, set()).add(piece)
            wanted.on_piece(piece, digest_of(piece))
        elif says == 18:
            wanted.on_liar(self.rng.choice(NAMES))
        else:
            self._end(wanted)

    def _end(self, wanted: SeedRequest) -> None:
        ends: list[DarnerError | None] = [
            *(None, OriginError(502, "no"), DigestError("no"), AbandonedError("no"), NotHereError("no")),
        ]
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
        seeded = {(piece, digest_of(piece)) for piece in set().union(*chaos.seeded.values())}
        assert {(piece.piece, piece.digest) for piece in granted} <= seeded | chaos.named
        check_the_books(tracker.scheduler)
        assert set(tracker.seeds._by_blob.values()) <= set(tracker.seeds.tasks.values())
        assert {session.name: session for session in tracker.sessions.values()} == tracker._by_name
        for task in tracker.seeds.tasks.values():
            assert task.takers <= set(tracker.sessions.values())
            assert all(task.number in session.in_flight for session in task.takers)
            assert task.takers == task.sources.keys()
            assert task.named.keys() == task.digests.keys()
            assert task.describers.keys() <= tracker.sessions.keys()
        lab.stop()
        await asyncio.get_running_loop().run_in_executor(None, lab.join)

    asyncio.run(run())
