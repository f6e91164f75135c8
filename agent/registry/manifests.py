"""Which manifest a name means now: asked at the origin once per interval, remembered, and served stale while it is down.

    DIR/manifests/HEX     media type and body of each manifest, named by its digest
    DIR/tags/HEX.HEX      the last answer to (registry, repository, tag or digest), named by their hash, and by the credential's

Tags that the operator lists as fresh are asked for every time; those who ask while a question is under way share its answer.

An answer is a verdict too: it says that this credential may read this name. Digests never change, so for them it is only the
verdict that grows old. The supernode and a lone agent use this alike.
"""

from __future__ import annotations

import hashlib
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import msgspec

from agent import metrics
from agent.origin.client import Origin, Patience
from agent.origin.shares import Prompt
from agent.origin.shown import Said, WhenDown, key_of
from agent.storage.disk import allocated, changed_at, remove
from agent.swarm import messages
from agent.values.credential import Credential
from agent.values.errors import OriginError
from agent.values.manifest import Manifest
from agent.values.reference import raw_digest
from agent.values.tag_pattern import TagPattern

log = logging.getLogger(__name__)

VERDICT_SECONDS = 300.0
"""How long the origin's permission for a digest is believed."""
WAIT_SECONDS_MAX = 20.0
"""How long one asks while another already asks the same."""
PATIENT_MAX = 32
"""Questions at once that may last, about manifests of which nothing can be said otherwise."""
FAILURE_SECONDS_MAX = 10.0
"""How long an origin that did not answer is not asked again, where its last answer can be used."""
FAILURES_MAX = 1024
ANSWERS_MAX = 50_000
MANIFESTS_MAX = 10_000
"""Kept on disk; a manifest is a few KiB, and at most 4 MiB."""


Answer = TypeVar("Answer")

SHARED_BYTES_MIN = 64 << 10
"""Manifests from this length on are in memory once, however many are given them; there are some of 4 MiB."""

REFUSED = ""
"""In the place of a digest: the last answer was that this credential may not read the name."""


_UNREADABLE = (OSError, msgspec.MsgspecError, UnicodeDecodeError)
"""A file that is not there, or that a bad disk has changed, is as if nothing had been kept."""


class _LastAnswer(msgspec.Struct, frozen=True):
    digest: str
    asked_at: messages.UnixSeconds
    """Unix seconds: it has to mean something after a restart."""


class _ManifestRecord(msgspec.Struct, frozen=True):
    media_type: str
    body: bytes


class SharedVerdicts(Protocol):
    """The permissions of the whole cluster (`agent.swarm.supernodes`)."""

    def verdict(self, registry: str, repository: str, path: str, credential: Credential | None) -> Said | None: ...

    def told(
        self,
        registry: str,
        repository: str,
        path: str,
        credential: Credential | None,
        outcome: int,
        manifest: Manifest | None = None,
    ) -> None: ...


class Manifests:
    """Intervals in seconds."""

    def __init__(
        self,
        directory: Path,
        origin: Origin,
        *,
        interval: float,
        stale_if_error: float,
        fresh: tuple[TagPattern, ...] = (),
        now: Callable[[], float] = time.time,
        bytes_max: Callable[[], int] = lambda: sys.maxsize,
        when_down: WhenDown = WhenDown.SAME_IMAGE,
    ) -> None:
        """`bytes_max` is how much room there is for manifests on the disk; those that were asked for longest ago make place."""
        self._bytes_max = bytes_max
        self.shared: SharedVerdicts | None = None
        """Asked for what credentials may have. What is public, supernodes are asked for elsewhere."""
        self._when_down = when_down
        self._manifests = directory / "manifests"
        self._tags = directory / "tags"
        for path in (self._manifests, self._tags):
            path.mkdir(parents=True, exist_ok=True)
        self._bytes = sum(map(allocated, self._manifests.iterdir()))
        self._origin = origin
        self._interval = interval
        self._stale_if_error = stale_if_error
        self._fresh = fresh
        self._now = now
        self._lock = threading.Lock()
        self._patience = Patience(PATIENT_MAX)
        self._asking: dict[str, Future[Any]] = {}
        self._reading = threading.Lock()
        self._in_use: WeakValueDictionary[str, Manifest] = WeakValueDictionary()
        """By digest: many who are given a long one at once share it."""
        self._failed_at: dict[str, float] = {}
        """When the origin did not answer, for names whose last answer is used instead."""
        self._forgets = 0
        """How often something was to be forgotten. What was asked for before that is not kept."""

    def resolve(self, registry: str, repository: str, reference: str, credential: Credential | None = None) -> Manifest:
        """The manifest that a tag or a digest names, for clients with this credential. Raises OriginError and DigestError."""
        name = _name(registry, repository, reference, credential)
        try:
            return self.together(name, lambda: self._resolve(name, registry, repository, reference, credential))
        except TimeoutError:
            raise OriginError(504, f"the registry {registry} did not answer in time") from None

    def together(self, name: str, question: Callable[[], Answer]) -> Answer:
        """The answer to a question, and the failure too, is shared by all who ask the same meanwhile.

        Raises TimeoutError for those that have waited long for another one's answer.
        """
        with self._lock:
            asked = self._asking.get(name)
            answer = self._asking.setdefault(name, Future())
        if asked:
            shared: Answer = asked.result(WAIT_SECONDS_MAX)
            return shared
        try:
            answer.set_result(question())
        except BaseException as error:
            answer.set_exception(error)
        finally:
            with self._lock:
                del self._asking[name]
        own: Answer = answer.result()
        return own

    def _resolve(self, name: str, registry: str, repository: str, reference: str, credential: Credential | None) -> Manifest:
        forgets = self._forgets
        last = self._last_answer(name)
        known = self.kept(last.digest) if last else None
        if last and known and 0 <= self._now() - last.asked_at < self.believed_seconds(registry, repository, reference):
            return known
        said = (
            self.shared.verdict(registry, repository, f"manifests/{reference}", credential)
            if self.shared and credential
            else None
        )
        if said and said.manifest and said.age is not None and not said.is_yours:
            self.remember(registry, repository, reference, credential, said.manifest, said.age)
            return said.manifest
        usable = self._usable(name, said)
        if usable and 0 <= self._now() - self._failed_at.get(name, -math.inf) < min(self._interval, FAILURE_SECONDS_MAX):
            return usable.as_stale()
        expected = known or (said.manifest if said else None)
        try:
            manifest = self._ask_for_all(registry, repository, reference, credential, expected, may_last=usable is None)
        except OriginError as error:
            if error.answered:
                self._refused(name, error)
            if not error.failed_there:
                raise
            if usable:
                log.warning("%s/%s:%s is served as it was: %s", registry, repository, reference, error)
                metrics.STALE_ANSWERS.inc()
                self._failed(name)
                return usable.as_stale()
            if last and last.digest == REFUSED and abs(self._now() - last.asked_at) < self._stale_if_error:
                # So a runtime shows its credential, for which there may be an answer.
                raise OriginError(
                    401, f"the registry {registry} refused it when it was asked last: {error}", "UNAUTHORIZED"
                ) from None
            raise
        self._failed_at.pop(name, None)
        if forgets == self._forgets:
            self.remember(registry, repository, reference, credential, manifest)
        else:
            self.keep(manifest)
        return manifest

    def _ask_for_all(
        self,
        registry: str,
        repository: str,
        reference: str,
        credential: Credential | None,
        known: Manifest | None,
        may_last: bool,
    ) -> Manifest:
        """As `_ask`, and the other nodes with this credential are told what comes of it."""
        outcome, manifest = messages.UNANSWERED, None
        try:
            manifest = self._ask(registry, repository, reference, credential, known, may_last)
            outcome = messages.ALLOWED
            return manifest
        except OriginError as error:
            outcome = messages.REFUSED if error.answered else outcome
            raise
        finally:
            if self.shared and credential:
                self.shared.told(registry, repository, f"manifests/{reference}", credential, outcome, manifest)

    def _usable(self, name: str, said: Said | None) -> Manifest | None:
        """What may be given while the origin cannot be asked."""
        if self._when_down is WhenDown.DENY:
            return None
        names = [name]
        if self._when_down is WhenDown.ALLOW:  # what it said to anybody
            names += sorted(
                (path.name for path in self._tags.glob(f"{name.partition('.')[0]}.*")), key=self._asked_at, reverse=True
            )
        for one in names:
            last = self._last_answer(one)
            if last and abs(self._now() - last.asked_at) < self._stale_if_error and (known := self.kept(last.digest)):
                return known
        return said.manifest if said and said.age is not None and said.age < self._stale_if_error else None

    def _asked_at(self, name: str) -> float:
        last = self._last_answer(name)
        return last.asked_at if last else 0.0

    def believed_seconds(self, registry: str, repository: str, reference: str) -> float:
        """How long the origin's answer is used without another question."""
        if reference.startswith("sha256:"):
            return VERDICT_SECONDS
        return 0.0 if any(pattern.matches(registry, repository, reference) for pattern in self._fresh) else self._interval

    def _ask(
        self,
        registry: str,
        repository: str,
        reference: str,
        credential: Credential | None,
        known: Manifest | None,
        may_last: bool,
    ) -> Manifest:
        """A HEAD is enough when the name means what it meant before.

        When it means something else, the manifest comes from the origin, whatever is here already: a registry that names a digest
        does not prove that it may show the manifest that has it.
        """
        if known and self._origin.digest_of(registry, repository, reference, credential, known.digest) == known.digest:
            return known
        with self._patience.seconds(registry) if may_last else nullcontext() as seconds:
            return self._origin.manifest(registry, repository, reference, credential, seconds)

    def recall(self, question: messages.Recall) -> messages.Recalled:
        """The answer to a supernode that has lost its cache, which is soft: each node remembers what it was told of a name.

        Only what the origin said to clients without a credential: the verdicts on others are nobody's business.
        """
        last = self._last_answer(_name(question.registry, question.repository, question.reference, None))
        if last is None or (age := abs(self._now() - last.asked_at)) >= self._stale_if_error:
            return messages.Recalled(question.request, None, 0.0, "", b"")
        known = self.kept(last.digest)
        if known is None:
            return messages.Recalled(question.request, None, age, "", b"", last.digest == REFUSED)
        body = known.body if question.body else b""
        return messages.Recalled(question.request, raw_digest(known.digest), age, known.media_type, body)

    def remember(
        self,
        registry: str,
        repository: str,
        reference: str,
        credential: Credential | None,
        manifest: Manifest,
        age: float = 0.0,
    ) -> None:
        """Keep an answer that the origin gave `age` seconds ago, to this process or to another one."""
        self.keep(manifest)
        self._note(_name(registry, repository, reference, credential), manifest.digest, self._now() - age)

    def remember_recalled(self, registry: str, repository: str, reference: str, manifest: Manifest, age: float) -> None:
        """Keep what nodes say that the origin said `age` seconds ago, when it could not be asked: however young they say it is,
        it is never more than an old answer."""
        age = max(age, self.believed_seconds(registry, repository, reference))
        self.remember(registry, repository, reference, None, manifest, age)
        self._failed(_name(registry, repository, reference, None))

    def _failed(self, name: str) -> None:
        while len(self._failed_at) >= FAILURES_MAX:
            self._failed_at.pop(next(iter(self._failed_at)), None)
        self._failed_at[name] = self._now()

    def _refused(self, name: str, error: OriginError) -> None:
        """What was allowed before is over; of a name that is there and not for this credential, that is remembered."""
        remove(self._tags / name)
        if error.status in (401, 403):
            self._note(name, REFUSED, self._now())

    def _note(self, name: str, digest: str, asked_at: float) -> None:
        try:
            _write(self._tags / name, msgspec.msgpack.encode(_LastAnswer(digest, asked_at)))
        except OSError as error:  # the answer is right all the same
            log.warning("an answer is not kept: %s", error)

    def keep(self, manifest: Manifest) -> None:
        """Keep a manifest, which says nothing of who may have it: a runtime that asked for a tag asks for its digest next."""
        path = self._manifests / manifest.digest.removeprefix("sha256:")
        try:
            with self._reading:
                self._share(manifest)
                is_here = self._read(manifest.digest) is not None
            if is_here:
                os.utime(path)
                return
            _write(path, msgspec.msgpack.encode(_ManifestRecord(manifest.media_type, manifest.body)))
        except OSError as error:
            log.warning("a manifest is not kept: %s", error)
            return
        with self._lock:
            self._bytes += allocated(path)
        if self._bytes > self._bytes_max():
            self._evict_manifests(math.inf)

    def kept(self, digest: str) -> Manifest | None:
        """A manifest that is here, if it still has the digest that it is named by."""
        with self._reading:
            manifest = self._in_use.get(digest) or self._read(digest)
            if manifest:
                self._share(manifest)
        return manifest

    def _share(self, manifest: Manifest) -> None:
        if len(manifest.body) >= SHARED_BYTES_MIN:
            self._in_use[manifest.digest] = manifest

    def _read(self, digest: str) -> Manifest | None:
        try:
            raw = (self._manifests / digest.removeprefix("sha256:").replace("/", "")).read_bytes()
            record = msgspec.msgpack.decode(raw, type=_ManifestRecord)
        except _UNREADABLE:
            return None
        manifest = Manifest.of(record.media_type, record.body)
        return manifest if manifest.digest == digest else None

    def forget(self, registry: str, repository: str, reference: str) -> int:
        """Drop what the origin said of a name, to every credential, so that it is asked again. The number of answers dropped.

        Manifests and blobs stay: what they are called by is what they are.
        """
        self._forgets += 1
        answers = list(self._tags.glob(f"{_hash(registry, repository, reference)}.*"))
        for path in answers:
            remove(path)
        return len(answers)

    def _last_answer(self, name: str) -> _LastAnswer | None:
        try:
            return msgspec.msgpack.decode((self._tags / name).read_bytes(), type=_LastAnswer)
        except _UNREADABLE:
            return None

    @property
    def prompt(self) -> Prompt:
        return self._origin.prompt

    @property
    def bytes_kept(self) -> int:
        """Bytes of manifests on the disk."""
        return self._bytes

    def evict_old(self, age: float) -> None:
        """Drop the files that nobody asked for in `age` seconds and those over the limits, the oldest first."""
        _evict(self._tags, ANSWERS_MAX, age)
        self._evict_manifests(age)

    def _evict_manifests(self, age: float) -> None:
        kept = _evict(self._manifests, MANIFESTS_MAX, age, self._bytes_max())
        with self._lock:
            self._bytes = kept


def _evict(directory: Path, most: int, age: float, bytes_max: int = sys.maxsize) -> int:
    """Drop the files that are older, and the oldest of those over the limits. The bytes of the others."""
    kept = 0
    found = sorted(((changed_at(path), path) for path in directory.iterdir()), reverse=True)
    for number, (changed, path) in enumerate(found):
        size = allocated(path)
        if number >= most or changed < time.time() - age or kept + size > bytes_max:
            remove(path)
        else:
            kept += size
    return kept


def _name(registry: str, repository: str, reference: str, credential: Credential | None) -> str:
    return f"{_hash(registry, repository, reference)}.{_hash(key_of(credential))}"


def _hash(*texts: str) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place whole: after a crash it is the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{threading.get_ident()}")
    temporary.write_bytes(content)
    os.replace(temporary, path)
