"""Seeding: how a blob comes to the supernode, once, and how its pieces are announced while it comes.

In this order: the supernode's own store, the nodes that hold the blob whole, the origin. Piece digests are computed here on the
way, so what is announced is what the agents will check against. What comes from nodes is announced when the whole blob is right,
for a node may lie; what comes from the origin is announced piece by piece, all but the last one. Runs in threads of its own and
knows nothing of scheduling.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent.http.wire import ReadInto
from agent.origin.blobstream import BlobStream
from agent.origin.client import Origin, Patience
from agent.storage.blob import Blob, Claim
from agent.storage.disk import piece_digest
from agent.storage.store import Store
from agent.swarm.messages import STALLED
from agent.swarm.piece_client import PieceFetcher, fill
from agent.values.address import Address
from agent.values.credential import Credential
from agent.values.errors import DarnerError, DigestError, OriginError, SourceError, StoreError
from agent.values.pattern import Pattern
from agent.values.pieces import Layout, lowest, members
from agent.values.web_file import WebFile
from supernode import metrics
from supernode.registry_credentials import RegistryCredentials

log = logging.getLogger(__name__)

ORIGIN_TRIES_MAX = 3
"""In a row, without a piece between them."""
HOLDERS_MAX = 8
SILENT_HOLDERS_MAX = 1
"""Before the origin is asked. Each of them costs what a piece may stall; the others are asked where the origin fails."""
COMING_CHUNK_BYTES = 128 << 10
"""So much of a piece is passed on at a time while it comes."""
COMING_SECONDS_MAX = 0.5
"""A piece is passed on while it comes if all of it will be here so soon: for as long it takes a slot of its taker's."""
LOOK_SECONDS = 0.25
PATIENT_MAX = 16
"""Blobs at once whose registry may be slow to begin."""


class NotHereError(DarnerError):
    """The blob is neither in the cache nor at a node, and the origin was not to be asked."""

    status = 404


class AbandonedError(DarnerError):
    """Nobody wants the blob any more. What has come of it is kept, and a later try goes on from there."""

    status = 503


@dataclass(frozen=True)
class Holder:
    """A node that says it holds the blob whole."""

    name: str
    where: Address
    size: int
    fingerprint: bytes = b""
    """Of its piece server."""


@dataclass(frozen=True)
class SeedRequest:
    """A blob, where it can be had, and whom to tell. The callbacks are called from the seeding thread."""

    digest: str
    registry: str
    repository: str
    private: bool
    """Whether the node that opened it needs a credential for it."""
    size: int
    """As the node says that asked first; 0 when it does not know."""
    asks_origin: bool
    """Whether the origin is asked for what is neither here nor at nodes: as nobody, for a credential never leaves its node, and
    with the operator's credentials where that is refused."""
    holders: tuple[Holder, ...]
    on_size: Callable[[Blob], None]
    on_coming: Callable[[int], None]
    """A piece that nodes may ask for before all of it is here, and before its digest is known: `on_piece` follows."""
    on_piece: Callable[[int, bytes], None]
    on_liar: Callable[[str], None]
    """A holder, by its name, whose bytes are not the blob."""
    on_end: Callable[[DarnerError | None], None]
    abandoned: threading.Event
    file: WebFile | None = None
    """Where it is no blob, but a file of a web server."""


@dataclass
class Seeder:
    store: Store
    origin: Origin
    fetcher: PieceFetcher
    credentials: RegistryCredentials = field(default_factory=RegistryCredentials)
    patience: Patience = field(default_factory=lambda: Patience(PATIENT_MAX))
    files: tuple[Pattern, ...] = ()
    """The servers that may be asked for files."""

    def blob_size(self, registry: str, repository: str, digest: str) -> int | None:
        """Bytes of a blob, as the origin says; None when it does not hold it. Raises OriginError."""
        return self.credentials.ask(registry, repository, partial(self.origin.blob_size, registry, repository, digest))[0]

    def seed(self, wanted: SeedRequest) -> None:
        """Get the blob, announcing pieces as they are ready. Never raises: `on_end` hears how it went."""
        ended: DarnerError | None = None
        try:
            _Seeding(self, wanted).run()
        except DarnerError as error:
            ended = error
        except Exception as error:
            log.exception("seeding %s failed inside", wanted.digest)
            ended = DarnerError(f"seeding failed inside: {type(error).__name__}")
        self.fetcher.rest()
        if not isinstance(ended, NotHereError):
            metrics.SEEDS.labels("failed" if ended else "whole").inc()
        wanted.on_end(ended)


class _Seeding:
    """One blob on its way. Raises DarnerError."""

    def __init__(self, seeder: Seeder, wanted: SeedRequest) -> None:
        self._seeder = seeder
        self._wanted = wanted
        self._layout = Layout.of(wanted.size) if wanted.size else None
        self._blob: Blob | None = None
        self._is_mixed = False
        """Whether some of it came from nodes, or from an earlier try: if it is wrong, the origin need not be at fault."""
        self._announced: dict[int, bytes] = {}
        self._coming: int | None = None
        """The piece that was last said to be coming."""
        self._holders: list[Holder] | None = None
        """Those that were not tried yet, once it is known who may be right about the size."""

    def run(self) -> None:
        try:
            blob = self._from_store() or self._from_holders(SILENT_HOLDERS_MAX if self._wanted.asks_origin else HOLDERS_MAX)
            if blob is None and not self._wanted.asks_origin:
                raise NotHereError(f"{self._wanted.digest} is not here")
            blob = blob or self._from_origin()
        except (DarnerError, OSError) as error:
            failed = error if isinstance(error, DarnerError) else StoreError(f"the cache cannot be used: {error.strerror}")
            if self._blob:
                self._blob.fail(failed)
            raise failed from None
        for piece in range(blob.layout.count):
            if piece not in self._announced:
                self._announce(piece, blob.digests.get(piece) or piece_digest(blob.fd, blob.layout, piece))

    def _from_store(self) -> Blob | None:
        """What is here already; None when it is not, or is damaged."""
        blob = self._seeder.store.blob(self._wanted.digest)
        if blob is None:
            return None
        self._tell_size(blob)
        try:
            while not blob.wait_whole(LOOK_SECONDS):
                self._go_on()
        except (DigestError, StoreError) as error:
            log.warning("%s", error)
            return None
        return blob

    # From the nodes that hold it.

    def _from_holders(self, silent_max: int) -> Blob | None:
        """The blob as the nodes have it. None when they do not have it right, or not all of it, or so many of them send nothing.

        What came is kept then.
        """
        wanted = self._wanted
        if self._holders is None:
            size = self._size() if wanted.holders else 0
            self._holders = [holder for holder in wanted.holders if holder.size == size][:HOLDERS_MAX]
        holders = self._holders
        if not holders:
            return None
        blob = self._blob or self._receive(holders[0].size)
        givers = {"an earlier try"} if self._is_mixed else set()
        self._is_mixed = True
        for piece in members(blob.missing):
            while holders and silent_max > 0 and not blob.held >> piece & 1:
                self._go_on()
                try:
                    self._seeder.fetcher.fetch(blob, piece, None, holders[0].where, fingerprint=holders[0].fingerprint)
                    givers.add(holders[0].name)
                except SourceError as error:
                    silent_max -= error.verdict == STALLED
                    log.info("%s is not taken back from %s: %s", wanted.digest, holders.pop(0).name, error)
        if blob.whole:
            metrics.RECOVERED_BYTES.inc(blob.size)
            return blob
        if blob.error:
            self._blob, self._is_mixed = None, False  # the store has dropped it: the next one begins with nothing
            self._holders = [holder for holder in holders if holder.name not in givers]
            log.warning("%s cannot be taken back from %s: %s", wanted.digest, " and ".join(sorted(givers)), blob.error)
            if len(givers) == 1 and "an earlier try" not in givers:
                wanted.on_liar(*givers)
        return None

    def _size(self) -> int:
        """Bytes of the blob: as the origin says, or as most holders do when it does not answer this supernode."""
        wanted = self._wanted
        size = None
        if wanted.size:
            return wanted.size
        try:
            size = self._seeder.blob_size(wanted.registry, wanted.repository, wanted.digest)
        except OriginError as error:
            log.info("the size of %s is what its holders say: %s", wanted.digest, error)
        return Counter(holder.size for holder in wanted.holders).most_common(1)[0][0] if size is None else size

    # From the origin.

    def _from_origin(self) -> Blob:
        """All that is missing, from the origin. If the whole is wrong and not all of it was the origin's, once more all of it.

        Where the origin fails, from the nodes that nobody has asked yet.
        """
        try:
            blob = self._fill_up()
        except OriginError:
            from_nodes = self._from_holders(HOLDERS_MAX)
            if from_nodes is None:
                raise
            return from_nodes
        if isinstance(blob.error, DigestError) and self._is_mixed:
            log.warning("%s is fetched from the beginning: %s", self._wanted.digest, blob.error)
            self._blob, self._is_mixed = None, False
            blob = self._fill_up()
        if blob.error:
            raise blob.error
        return blob

    def _fill_up(self) -> Blob:
        """The blob with nothing missing, right or wrong. Goes on where a broken stream ended."""
        tries = 0
        while self._blob is None or (self._blob.missing and not self._blob.error):
            before = self._blob.held if self._blob else 0
            try:
                self._stream()
            except (OriginError, SourceError) as error:
                tries = 1 if self._blob and self._blob.held != before else tries + 1
                refused = isinstance(error, OriginError) and error.answered
                if tries >= ORIGIN_TRIES_MAX or refused or self._blob is None:
                    raise
                self._go_on()
                log.info("the origin's stream of %s broke off and is resumed: %s", self._wanted.digest, error)
        return self._blob

    def _stream(self) -> None:
        """One answer of the origin, from the first missing piece to the next one that is here already."""
        wanted = self._wanted
        first = lowest(self._blob.missing) if self._blob else 0
        start = self._blob.layout.span(first)[0] if self._blob else 0
        registry, repository = wanted.registry, wanted.repository
        if wanted.file:
            stream, is_private = self._seeder.origin.web.open(wanted.file, {}, start), False
        else:
            with self._seeder.patience.seconds(registry) as seconds:

                def ask(credential: Credential | None) -> BlobStream:
                    return self._seeder.origin.open_blob(registry, repository, wanted.digest, credential, start, seconds)

                stream, is_private = self._seeder.credentials.ask(registry, repository, ask)

        def read_into(buffer: memoryview) -> int:
            self._go_on()
            return stream.read_into(buffer)

        try:
            blob = self._blob or self._receive(stream.size, is_private)
            if is_private and not blob.private:  # what is here of it came from nodes, of which none said so
                blob.hide()
                self._tell_size(blob)
            if stream.size != blob.size:
                raise OriginError(502, f"the registry {wanted.registry} names another size than before")
            blob.provenance.keep(blob.provenance.wanted)
            while first < blob.layout.count and not blob.held >> first & 1 and not blob.error:
                is_last = blob.missing == 1 << first  # then it waits for the digest of the whole
                claim = blob.claim(first)
                digest = fill(blob, first, claim, read_into) if is_last else self._pass_on(blob, first, claim, read_into)
                if not is_last:  # before anybody can have all of it and say so
                    self._announce(first, digest)
                blob.add(first, digest, checked=True, claim=claim)
                begin, end = blob.layout.span(first)
                metrics.ORIGIN_RECEIVED_BYTES.inc(end - begin)
                first += 1
            stream.deny(blob.error)
        finally:
            stream.close()

    def _pass_on(self, blob: Blob, piece: int, claim: Claim, read_into: ReadInto) -> bytes:
        """Fill a piece, let nodes have it while it comes if it comes fast enough, and return its digest."""
        start, end = blob.layout.span(piece)
        began = time.monotonic()

        def came(position: int) -> None:
            if position == end:
                return
            blob.came(position)
            seconds_left = (time.monotonic() - began) * (end - position) / (position - start)
            if self._coming != piece and piece not in self._announced and seconds_left <= COMING_SECONDS_MAX:
                self._coming = piece
                self._wanted.on_coming(piece)

        return fill(blob, piece, claim, lambda buffer: read_into(buffer[:COMING_CHUNK_BYTES]), came)

    # What all of these share.

    def _receive(self, size: int, is_private: bool = False) -> Blob:
        """A file for the blob, with what an earlier try has left; what the origin sent of that is announced at once.

        A blob is private also where only the operator's credentials opened it.
        """
        try:
            layout = Layout.of(size)
            self._check_size(layout)  # before there is a blob, which a second try would go on with
            wanted = self._wanted
            public = not (wanted.private or is_private)
            contents = wanted.file.digest if wanted.file else None
            blob = self._blob = self._seeder.store.receive(wanted.digest, layout, public=public, contents=contents)
        except ValueError as error:
            raise OriginError(502, f"a size is named for {self._wanted.digest} that cannot be: {error}") from None
        self._is_mixed = bool(blob.held)
        blob.provenance.begin(self._wanted.registry, self._wanted.repository, is_empty=not blob.held)
        self._tell_size(blob)
        for piece in members(blob.checked):
            if piece in blob.digests:
                self._announce(piece, blob.digests[piece])
        blob.finish_if_empty()
        return blob

    def _check_size(self, layout: Layout) -> None:
        if self._layout is not None and self._layout != layout:
            raise OriginError(502, f"{self._wanted.digest} is not as long as the nodes said")

    def _tell_size(self, blob: Blob) -> None:
        self._check_size(blob.layout)
        self._layout = blob.layout
        self._wanted.on_size(blob)

    def _announce(self, piece: int, digest: bytes) -> None:
        if self._announced.get(piece, digest) != digest:
            raise DigestError(f"two versions of {self._wanted.digest} were sent under its one digest")
        if piece not in self._announced:
            self._announced[piece] = digest
            self._wanted.on_piece(piece, digest)

    def _go_on(self) -> None:
        if self._wanted.abandoned.is_set():
            raise AbandonedError(f"nobody wants {self._wanted.digest} any more")
