"""What goes wrong in a trial, drawn from its seed: what, to whom, when and for how long.

A fault that keeps the origin itself from a node passes; what only keeps the swarm from it may stay. So every pull can end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from hack.simulate.trial.origin import ORIGIN, REGISTRIES, Mood
from hack.simulate.trial.ways import Block, Purpose, Way

if TYPE_CHECKING:
    from hack.simulate.trial.node import Node
    from hack.simulate.trial.world import World

AFTER_SECONDS = (0.3, 1.0, 3.0, 12.0)
SPAN_SECONDS_MAX = 40.0
CLOCK_SECONDS = (400.0, -400.0, 5000.0, -90_000.0)
KINDS_MAX = 4
FIRST_PULL_SECONDS = 0.9
"""When a node begins to pull that is to be the first."""


@dataclass
class Fault:
    what: str
    begin: Callable[[], None]
    end: Callable[[], None] | None = None
    begins_at: float = 0.0
    ends_at: float | None = None
    """None: it stays, or is over at once."""

    def __str__(self) -> str:
        until = f" until {self.ends_at:.1f} s" if self.ends_at is not None else ""
        return f"from {self.begins_at:.1f} s{until}: {self.what}"


class Faults:
    """Draws them for one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.random = Random(f"{world.seed} faults")
        self.drawn: list[Fault] = []
        self.kinds: list[str] = []

    def draw(self, wanted: list[Kind] | None = None) -> list[Fault]:
        """All that goes wrong, of the kinds that are wanted, or of some that are drawn too."""
        count = self.random.choice((0, 1, 1, 1, 2, 2, 3, KINDS_MAX))
        kinds = self.random.sample(KINDS, count) if wanted is None else wanted
        self.kinds = [kind.__name__ for kind in kinds]
        for kind in kinds:
            kind(self)
        for fault in self.drawn:
            self.world.at(fault.begins_at, self._begin, fault)
            if fault.ends_at is not None and fault.end:
                self.world.at(fault.ends_at, self._end, fault)
        return self.drawn

    def _begin(self, fault: Fault) -> None:
        self.world.say("fault", f"begins: {fault.what}")
        fault.begin()

    def _end(self, fault: Fault) -> None:
        assert fault.end
        self.world.say("fault", f"ends: {fault.what}")
        fault.end()

    # What they are made of.

    def _when(self) -> float:
        """From the start, or some moments after a client has begun to pull."""
        pull_at = self.random.choice(self.world.clients).began_at
        return self.random.choice((0.0, pull_at + self.random.random() * self.random.choice(AFTER_SECONDS)))

    def _span(self, begin: float) -> float:
        return begin + self.random.choice((0.5, 2.0, 6.0, 15.0, SPAN_SECONDS_MAX)) * (0.5 + self.random.random() / 2)

    def _nodes(self) -> list[Node]:
        nodes = self.world.nodes
        return self.random.sample(nodes, self.random.choice((1, 1, len(nodes) // 2, len(nodes))))

    def _names(self) -> frozenset[str] | None:
        nodes = self._nodes()
        return None if len(nodes) == len(self.world.nodes) else frozenset(node.name for node in nodes)

    @property
    def _supernode_names(self) -> frozenset[str]:
        return frozenset(supernode.name for supernode in self.world.supernodes)

    def _add(self, what: str, begin: Callable[[], None], end: Callable[[], None] | None = None, *, may_stay: bool = True) -> None:
        at = self._when()
        ends = self._span(at) if end and not (may_stay and self.random.random() < 0.5) else None
        self.drawn.append(Fault(what, begin, end, at, ends))

    def _crash(self, what: str, begin: Callable[[], None], end: Callable[[], None], *, may_stay: bool) -> None:
        self._add(what, begin, end, may_stay=may_stay)
        fault = self.drawn[-1]
        if fault.begins_at < 1.0:  # what crashes has started before
            fault.begins_at += 1.0
            fault.ends_at = None if fault.ends_at is None else fault.ends_at + 1.0

    def _block(self, block: Block, *, may_stay: bool = True) -> None:
        ways = self.world.ways
        self._add(str(block), lambda: ways.close(block), lambda: ways.open(block), may_stay=may_stay)

    def _mood(self, mood: Mood, *, may_stay: bool = False) -> None:
        world = self.world

        def begin() -> None:
            world.origin.moods.append(mood)
            world.look_at_transfers()

        def end() -> None:
            if mood in world.origin.moods:
                world.origin.moods.remove(mood)
                world.look_at_transfers()

        self._add(str(mood), begin, end, may_stay=may_stay)

    # The kinds.

    def pieces_of_the_supernodes(self) -> None:
        how = self.random.choice((Way.REFUSED, Way.DROPPED, Way.HOLE))
        self._block(Block(Purpose.PIECES, how, self._names(), self._supernode_names))

    def pieces_between_nodes(self) -> None:
        how = self.random.choice((Way.REFUSED, Way.DROPPED, Way.HOLE))
        targets = frozenset(node.name for node in self._nodes())
        self._block(Block(Purpose.PIECES, how, self._names(), targets))

    def channel_one_way(self) -> None:
        names = self._names()
        if self.random.random() < 0.5:
            self._block(Block(Purpose.CHANNEL, Way.DROPPED, names, self._supernode_names))
        else:
            self._block(Block(Purpose.CHANNEL, Way.DROPPED, self._supernode_names, names))

    def partition(self) -> None:
        """Some nodes and the supernodes do not see each other at all."""
        names, how = self._names(), self.random.choice((Way.REFUSED, Way.DROPPED))
        supernodes, ways = self._supernode_names, self.world.ways
        blocks = [Block(Purpose.CHANNEL, how, names, supernodes), Block(Purpose.CHANNEL, how, supernodes, names)]
        blocks += [Block(Purpose.PIECES, how, names, supernodes), Block(Purpose.PIECES, how, supernodes, names)]

        def begin() -> None:
            for block in blocks:
                ways.close(block)
            if how is Way.REFUSED:
                for node in self.world.nodes:
                    for channel in node.channels if names is None or node.name in names else ():
                        channel.break_off()

        def end() -> None:
            for block in blocks:
                ways.open(block)

        self._add(f"partition: {blocks[0]}", begin, end)

    def resets(self) -> None:
        for _ in range(self.random.randint(1, 4)):
            node = self.random.choice(self.world.nodes)

            def begin(node: Node = node) -> None:
                for channel in node.channels:
                    channel.break_off()

            self._add(f"the channels of {node.name} are reset", begin)

    def liars(self) -> None:
        for node in self._few():
            self._add(f"{node.name} sends wrong bytes", lambda node=node: setattr(node, "lies", True))  # type: ignore[misc]

    def pretenders(self) -> None:
        """They claim to hold what they do not, from their first Hello on."""
        for node in self._few():
            node.pretends = True
            self.drawn.append(Fault(f"{node.name} claims to hold every blob", lambda: None))

    def stuck(self) -> None:
        for party in [*self._few(), *self.random.choice(([], self.world.supernodes))]:

            def begin(party: object = party, *, is_stuck: bool = True) -> None:
                setattr(party, "is_stuck", is_stuck)  # noqa: B010 (either kind)
                self.world.look_at_transfers()

            self._add(
                f"the piece server of {party.name} takes requests and sends nothing",
                begin,
                lambda begin=begin: begin(is_stuck=False),  # type: ignore[misc]
            )

    def clocks(self) -> None:
        for party in [*self._few(), *self.random.choice(([], self.world.supernodes))]:
            party.clock_ahead = self.random.choice(CLOCK_SECONDS)
            self.drawn.append(Fault(f"the clock of {party.name} is {party.clock_ahead:.0f} s off", lambda: None))

    def keys(self) -> None:
        for party in self.random.choice((self._few(), self.world.supernodes)):
            party.key = b"o" * 32
            self.drawn.append(Fault(f"{party.name} has another key", lambda: None))

    def nodes_crash(self) -> None:
        for node in self._few():
            silently, wiped = self.random.random() < 0.5, self.random.random() < 0.5
            self._crash(
                f"{node.name} crashes, silently: {silently}, its disk is wiped: {wiped}",
                lambda node=node, silently=silently, wiped=wiped: node.crash(silently=silently, wiped=wiped),  # type: ignore[misc]
                node.start,
                may_stay=False,
            )

    def supernodes_crash(self) -> None:
        supernode = self.random.choice(self.world.supernodes)
        silently, wiped = self.random.random() < 0.5, self.random.random() < 0.5
        self._crash(
            f"{supernode.name} crashes, silently: {silently}, its disk is wiped: {wiped}",
            lambda: supernode.crash(silently=silently, wiped=wiped),
            supernode.start,
            may_stay=True,
        )

    def origin_away(self) -> None:
        how = self.random.choice((Way.REFUSED, Way.DROPPED))
        self._block(Block(Purpose.ORIGIN, how, self._names(), frozenset({ORIGIN})), may_stay=False)

    def origin_refuses_supernodes(self) -> None:
        how = self.random.choice((Way.REFUSED, Way.DROPPED))
        self._block(Block(Purpose.ORIGIN, how, self._supernode_names, frozenset({ORIGIN})))

    def origin_moods(self) -> None:
        askers = self.random.choice((None, None, self._names(), self._supernode_names))
        mood = self.random.choice(
            (
                Mood(askers, head_seconds=self.random.choice((1.0, 4.0, 9.0))),
                Mood(askers, is_silent=True),
                Mood(askers, status=self.random.choice((500, 503, 429))),
                Mood(askers, pieces_max=self.random.randint(1, 3)),
            )
        )
        self._mood(mood, may_stay=bool(mood.pieces_max or mood.head_seconds))

    def origin_lies(self) -> None:
        self._mood(Mood(self.random.choice((None, self._names(), self._supernode_names)), lies=True))

    def origin_refuses_a_node(self) -> None:
        node = self.random.choice(self.world.nodes)
        self._mood(Mood(frozenset({node.name}), status=self.random.choice((401, 403, 404))), may_stay=len(self.kinds) == 1)
        if self._is_first(node):
            self.drawn[-1].begins_at = 0.0
            self.kinds[self.kinds.index("origin_refuses_a_node")] = "origin_refuses_the_first_node"

    def origin_refuses_nodes(self) -> None:
        """It answers the supernodes, which nodes may have it from."""
        nodes = frozenset(node.name for node in self.world.nodes)
        self._mood(Mood(nodes, status=self.random.choice((401, 403))), may_stay=len(self.kinds) == 1)

    def origin_limits_requests(self) -> None:
        askers = self.random.choice((None, self._names(), frozenset({self.random.choice(self.world.nodes).name})))
        self._mood(Mood(askers, status=429, retry_after=self.random.choice((0, 2, 8, 30))))

    def origin_sends_all(self) -> None:
        """It knows no ranges."""
        self._mood(Mood(registry=self.random.choice(("", *REGISTRIES)), sends_all=True), may_stay=True)

    def one_registry_lies(self) -> None:
        """The other one has the same blobs, and they are right there."""
        liars = self.random.sample(self.world.nodes, self.random.randint(1, max(1, len(self.world.nodes) // 2)))
        for client in self.world.clients:
            client.node.registry = REGISTRIES[client.node in liars]
        self._mood(Mood(registry=REGISTRIES[1], lies=True), may_stay=True)
        if self.drawn[-1].ends_at is None:
            self._excuse(liars)

    def misnamers(self) -> None:
        self._misname(self.random.sample(self.world.nodes, self.random.choice((1, 1, 2))))

    def half_misname(self) -> None:
        """Every second node does. Not among those that are drawn.

        All have one registry: where a node has one of its own, that is held to have sent what was wrong.
        """
        for node in self.world.nodes:
            node.registry = REGISTRIES[0]
        self._misname(self.random.sample(self.world.nodes, len(self.world.nodes) // 2))

    def _misname(self, nodes: list[Node]) -> None:
        for node in nodes:
            node.misnames = True
            self._is_first(node)
            node.repents = Random(f"{self.world.seed} {node.name} repents").random() < 0.5
            until = ", until that is found out" if node.repents else ""
            self.drawn.append(Fault(f"{node.name} names digests that its pieces do not have{until}", lambda: None))
        self._excuse(nodes)

    def disputers(self) -> None:
        node = self.random.choice(self.world.nodes)
        node.disputes = True
        self.drawn.append(Fault(f"{node.name} says of right blobs that they are wrong", lambda: None))

    def silent_holders(self) -> None:
        """They hold a blob, and never say which digests its pieces have."""
        content = self.random.choice(list(self.world.contents.values()))
        for node in self._few():
            node.describes = False
            node.shelf.put(content)
            self.drawn.append(Fault(f"{node.name} holds {content.name} and never describes it", lambda: None))

    def dies_in_a_run(self) -> None:
        """As soon as it has been granted pieces at its origin."""
        node, world = self.random.choice(self.world.nodes), self.world
        silently, wiped = self.random.random() < 0.5, self.random.random() < 0.5
        after, away = self.random.random() * self.random.choice((0.05, 0.5)), self._span(0.0)

        def die() -> None:
            if node.dies_in_a_run:
                node.dies_in_a_run = None
                world.after(after, node.crash_for, away, silently, wiped)

        node.dies_in_a_run = die
        last = max(client.began_at for client in world.clients) + away
        what = f"{node.name} dies in its first run for {away:.1f} s, silently: {silently}, its disk is wiped: {wiped}"
        self.drawn.append(Fault(what, lambda: None, None, 0.0, last))

    def _is_first(self, node: Node) -> bool:
        """One time in two it pulls before all others, so that it is granted what nobody has."""
        is_first = Random(f"{self.world.seed} {node.name} is first").random() < 0.5
        if is_first:
            next(client for client in self.world.clients if client.node is node).begin_at(FIRST_PULL_SECONDS)
        return is_first

    def _excuse(self, nodes: list[Node]) -> None:
        for client in self.world.clients:
            if client.node in nodes:
                self.world.excuse(client)

    def slow_links(self) -> None:
        for node in self._few():
            node.host.up /= 4
            node.host.down /= 4
            self.drawn.append(Fault(f"the link of {node.name} is a quarter as fast", lambda: None))

    def runtimes_restart(self) -> None:
        for node in self._few():
            client = next(client for client in self.world.clients if client.node is node)
            self._add(f"the runtime of {node.name} restarts", client.give_up)

    def evictions(self) -> None:
        for node in self._few():

            def begin(node: Node = node) -> None:
                for digest in list(node.shelf.wholes):
                    node.shelf.evict(digest)

            self._add(f"{node.name} evicts what it holds", begin)

    def _few(self) -> list[Node]:
        nodes = self.world.nodes
        return self.random.sample(nodes, self.random.choice((1, 1, max(1, len(nodes) // 3))))


Kind = Callable[[Faults], None]
KINDS: list[Kind] = [
    Faults.pieces_of_the_supernodes,
    Faults.pieces_between_nodes,
    Faults.channel_one_way,
    Faults.partition,
    Faults.resets,
    Faults.liars,
    Faults.pretenders,
    Faults.stuck,
    Faults.clocks,
    Faults.keys,
    Faults.nodes_crash,
    Faults.supernodes_crash,
    Faults.origin_away,
    Faults.origin_refuses_supernodes,
    Faults.origin_moods,
    Faults.origin_lies,
    Faults.origin_refuses_a_node,
    Faults.origin_refuses_nodes,
    Faults.origin_limits_requests,
    Faults.origin_sends_all,
    Faults.one_registry_lies,
    Faults.misnamers,
    Faults.disputers,
    Faults.silent_holders,
    Faults.dies_in_a_run,
    Faults.slow_links,
    Faults.runtimes_restart,
    Faults.evictions,
]
