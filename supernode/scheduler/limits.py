"""The limits that the scheduler keeps to."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Limits:
    """What the scheduler keeps to. The figures behind the defaults are in docs/scheduling.md."""

    upload_slots_min: int = 3
    """Pieces that a source sends at once while a piece takes long: short queues win."""
    upload_slots_max: int = 16
    """The same where pieces are fast, unless the node itself says less."""
    seed_slots_min: int = 4
    """The supernode's own: as many as a taker's window, so that its uplink is full however the takers' links are shared."""
    seed_slots_max: int = 16
    slots_per_turnaround: float = 3.0
    """For every piece that a source could send while messages go to and fro, so many more slots."""
    requests_min: int = 4
    """Where messages are slow against pieces, and a source has so many times that many slots, that many pieces are asked for in
    one request: what it costs is then more than what its bytes cost."""
    together_max: int = 4
    """And at most: what a taker lacks of so many a source has to have, or it gives none of them."""
    link_share: float = 1.4
    """Of a source's link, what its pieces may use in all while messages are quick, if each taker divides its own link evenly."""
    spare_max: float = 14.0
    """Of nodes' links, by how many the supernode's may count as faster than one."""
    slots_per_spare: float = 3.0
    """For each of these, so many more slots of the supernode."""
    repeat_room: float = 0.6
    """Of nodes' links, how much more than what is in use the supernode must have to spare to send what others have too: the
    pieces that nobody else has must find room at any time."""
    want_max: int = 16
    """Further grants that one report may ask for."""
    window_min: int = 5
    """Grants to one node in one swarm that were not reported yet, where messages are quick against pieces."""
    in_flight_max: int = 32
    """The same where they are not."""
    reader_span: int = 2
    """Pieces, from where a reader is, that go before all others."""
    head_pieces_min: int = 32
    """Of blobs with fewer pieces the one with which a reader begins does not go before the rest: all of it is there soon."""
    head_begin_seconds: float = 0.1
    """How long one node alone asks the origin for a new blob, while its first piece has not come: else others' pieces share the
    origin's link with it."""
    head_seconds: float = 0.25
    """And how long, if that has come, nodes alone ask the origin that have a piece: the others' links are left to it."""
    head_takers_max: int = 16
    """Where more nodes than this want the blob, those that ask the origin are few of them: they need not wait for the piece."""
    grant_seconds_max: float = 30.0
    """After this a grant that was not reported is lost, and its piece can be granted to the node again."""
    slot_patience: float = 8.0
    """When a grant takes this many times as long as the swarm's pieces do, its source's slot is given to others."""
    slot_seconds_min: float = 1.0
    """But not before this."""
    retry_seconds: float = 10.0
    """How long a source that failed a node is not given to it again in that swarm, or to anybody when it seems to be dead."""
    seed_retry_seconds: float = 0.25
    """The same for the supernode, which may be the only source: at first, and twice as long after each failure, up to that."""
    seed_failures_max: int = 8
    """Pieces of the supernode that failed in a row, whoever their takers were: then it is tried by one taker at a time."""
    coming_retry_seconds: float = 1.0
    """The same for a piece that was still coming to the supernode and did not come in time."""
    patience_seconds: float = 1.0
    """A node that got nothing for so long takes from wherever there is a slot, repeats and other zones included."""
    patience_pieces: float = 16.0
    """But not before it has waited as long as so many of the swarm's pieces take: where they take long, waiting is usual."""
    patience_seconds_max: float = 8.0
    """Nor later than this: its agent waits 10 s for a word, and some runtimes a minute for a byte."""
    waiting_seconds: float = 1.0
    """How often a parked node is told that waiting is right."""
    probes_max: int = 8
    """Sources, or takers, that are looked at for one decision."""
    choices: int = 3
    """Of the sources looked at, how many that would do are compared."""
    rarest_of: int = 4
    """Pieces compared for the rarest."""
    swarms_max: int = 8
    """Swarms that are tried for one free slot."""
    rescues_max: int = 256
    """Parked nodes of a swarm that one tick looks at."""
    origin_slots_min: int = 4
    """Nodes that ask one registry at once, in the beginning: their links are shared with what comes from other nodes. More are
    tried."""
    origin_slots_max: int = 8
    """And at most."""
    run_pieces_min: int = 2
    """Of a run, unless fewer are known to take as long as a run should."""
    run_seconds: float = 1.0
    """How long a run should take where more pieces than the fewest come in that time."""
    run_bytes_max: int = 64 << 20
    runs_ahead: int = 2
    """With so few pieces left of its run, a node may be granted the next: its connection is not to stand idle."""
    run_failures_max: int = 3
    """A node whose runs failed so many times in a row is granted no more in that swarm."""
    run_begin_seconds: float = 4.0
    """How long a registry may take to begin: after that others may be granted what is left of a run."""
    run_end_seconds: float = 1.0
    """The same of a node that is much slower than others, when nothing else is left to be fetched."""
    run_patience_seconds: float = 3.0
    """The same between two pieces of a run."""
    run_patience: float = 8.0
    """But not before so many times what its pieces take."""
    overdue_patience: float = 2.0
    """The same, of what its origin takes for a piece, where the supernode has all of it and sends it slowly."""
    overdue_runs_max: int = 3
    """Runs in a row that bring nothing of what the supernode has too: then it is the source again."""
    origin_pause_seconds: float = 1.0
    """How long a registry is left alone that answers even its only node that this is too much, and does not say how long."""
    zones_max: int = 64
    """Zones told apart; nodes of any further zone count as being in none."""
    pieces_max: int = 1 << 16

    def head_times(self, pieces: int) -> tuple[float, ...]:
        """When `HeadTime` is due after `Made`, for a blob of so many pieces."""
        return (self.head_begin_seconds, self.head_seconds) if pieces >= self.head_pieces_min else ()

    def for_registries(self, connections: int) -> Limits:
        """The same where at most so many nodes ask one registry at once."""
        return replace(self, origin_slots_min=min(self.origin_slots_min, connections), origin_slots_max=connections)

    def for_seed(self, upload_slots: int) -> Limits:
        """The same for a supernode that sends at most so many pieces at once; 0 for no opinion."""
        most = min(upload_slots or self.seed_slots_max, self.seed_slots_max)
        return replace(self, seed_slots_min=min(self.seed_slots_min, most), seed_slots_max=most)
