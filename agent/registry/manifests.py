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

import msgspec

from agent import metrics
from agent.origin.client import Origin, Patience
from agent.origin.shown import key_of
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


REFUSED = ""
"""In the place of a digest: the last answer was that this credential may not read the name."""


class _LastAnswer(msgspec.Struct, frozen=True):
    digest: str
    asked_at: float
    """Unix seconds: it has to mean something after a restart."""


class _ManifestRecord(msgspec.Struct, frozen=True):
    media_type: str
    body: bytes


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
    ) -> None:
        """`bytes_max` is how much room there is for manifests on the disk; those that were asked for longest ago make place."""
        self._bytes_max = bytes_max
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
        self._asking: dict[str, Future[Manifest]] = {}
        self._failed_at: dict[str, float] = {}
        """When the origin did not answer, for names whose last answer is used instead."""
        self._forgets = 0
        """How often something was to be forgotten. What was asked for before that is not kept."""

    def resolve(self, registry: str, repository: str, reference: str, credential: Credential | None = None) -> Manifest:
        """The manifest that a tag or a digest names, for clients with this credential. Raises OriginError and DigestError."""
        name = _name(registry, repository, reference, credential)
        with self._lock:
            asked = self._asking.get(name)
            answer = self._asking.setdefault(name, Future())
        if asked:  # all who ask the same share the answer, and the failure too
            try:
                return asked.result(WAIT_SECONDS_MAX)
            except TimeoutError:
                raise OriginError(504, f"the registry {registry} did not answer in time") from None
        try:
            answer.set_result(self._resolve(name, registry, repository, reference, credential))
        except BaseException as error:
            answer.set_exception(error)
        finally:
            with self._lock:
                del self._asking[name]
        return answer.result()

    def _resolve(self, name: str, registry: str, repository: str, reference: str, credential: Credential | None) -> Manifest:
        forgets = self._forgets
        last = self._last_answer(name)
        known = self.kept(last.digest) if last else None
        if last and known and 0 <= self._now() - last.asked_at < self._believed_seconds(registry, repository, reference):
            return known
        usable = known if last and abs(self._now() - last.asked_at) < self._stale_if_error else None
        if usable and 0 <= self._now() - self._failed_at.get(name, -math.inf) < min(self._interval, FAILURE_SECONDS_MAX):
            return usable.as_stale()
        try:
            manifest = self._ask(registry, repository, reference, credential, known, may_last=usable is None)
        except OriginError as error:
            if error.answered:
                self._refused(name, error)
                raise
            if last and usable:
                age = self._now() - last.asked_at
                log.warning("%s/%s:%s is served as it was %d s ago: %s", registry, repository, reference, age, error)
                metrics.STALE_ANSWERS.inc()
                while len(self._failed_at) >= FAILURES_MAX:
                    self._failed_at.pop(next(iter(self._failed_at)), None)
                self._failed_at[name] = self._now()
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

    def _believed_seconds(self, registry: str, repository: str, reference: str) -> float:
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
        with self._patience.seconds() if may_last else nullcontext() as seconds:
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
            if self.kept(manifest.digest):
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
        try:
            raw = (self._manifests / digest.removeprefix("sha256:").replace("/", "")).read_bytes()
            record = msgspec.msgpack.decode(raw, type=_ManifestRecord)
        except (OSError, msgspec.MsgspecError):
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
        except (OSError, msgspec.MsgspecError):
            return None

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
