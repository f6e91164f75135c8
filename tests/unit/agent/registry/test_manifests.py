"""What a name means now: asked at the origin once per interval, shared, remembered, and used while the origin is away."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.process import steady
from agent.registry import manifests as module
from agent.registry.manifests import VERDICT_SECONDS, Manifests
from agent.storage.store import Store
from agent.values.credential import Credential
from agent.values.errors import DigestError, OriginError
from agent.values.manifest import Manifest
from agent.values.tag_pattern import tag_pattern

REGISTRY, REPOSITORY = "registry.test", "team/app"
OLD = Manifest.of("application/vnd.oci.image.manifest.v1+json", b'{"schemaVersion": 2}')
NEW = Manifest.of("application/vnd.oci.image.index.v1+json", b'{"schemaVersion": 2, "manifests": []}')
ALICE, BOB = Credential("alice", "a"), Credential("bob", "b")
DAY = 86400.0


class FakeOrigin:
    """Answers with what it is told, and notes what it was asked: HEAD and GET, and for which reference."""

    def __init__(self) -> None:
        self.now: Manifest = OLD
        self.error: Exception | None = None
        self.asked: list[tuple[str, str]] = []
        self.silent = False
        """Whether a HEAD does not tell the digest."""
        self.gate = threading.Event()
        self.gate.set()

    def digest_of(
        self, registry: str, repository: str, reference: str, credential: object, known: str | None = None
    ) -> str | None:
        self._ask("HEAD", reference)
        return None if self.silent else self.now.digest

    def manifest(
        self, registry: str, repository: str, reference: str, credential: object, seconds: float | None = None
    ) -> Manifest:
        self._ask("GET", reference)
        return self.now

    def _ask(self, method: str, reference: str) -> None:
        self.asked.append((method, reference))
        self.gate.wait(20)
        if self.error:
            raise self.error


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def origin() -> FakeOrigin:
    return FakeOrigin()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manifests(tmp_path: Path, origin: FakeOrigin, clock: Clock) -> Manifests:
    return begin(tmp_path, origin, clock)


def begin(directory: Path, origin: FakeOrigin, clock: Clock, *fresh: str) -> Manifests:
    patterns = tuple(map(tag_pattern, fresh))
    return Manifests(directory, origin, interval=30.0, stale_if_error=DAY, fresh=patterns, now=clock)


def resolve(manifests: Manifests, reference: str = "1", credential: Credential | None = None) -> Manifest:
    return manifests.resolve(REGISTRY, REPOSITORY, reference, credential)


DOWN = OriginError(504, "it did not answer")


def test_a_tag_is_asked_for_once_in_an_interval(manifests: Manifests, origin: FakeOrigin, clock: Clock) -> None:
    for _ in range(3):
        assert resolve(manifests) == OLD
        clock.now += 9.9
    assert origin.asked == [("GET", "1")]


@pytest.mark.parametrize("jump", [DAY, -DAY])
def test_a_wall_clock_that_is_set_changes_no_interval_and_an_origin_that_is_down_is_stood_in_for_as_before(
    tmp_path: Path, origin: FakeOrigin, jump: float
) -> None:
    """FAULTS 43."""
    wall = Clock()
    now = steady(wall)
    manifests = Manifests(tmp_path, origin, interval=3600.0, stale_if_error=7200.0, now=now)
    resolve(manifests)
    wall.now += jump
    assert resolve(manifests) == OLD
    assert origin.asked == [("GET", "1")]
    origin.error = DOWN
    impatient = Manifests(tmp_path, origin, interval=0.0, stale_if_error=7200.0, now=now)
    assert resolve(impatient).digest == OLD.digest


def test_a_tag_that_means_what_it_meant_costs_a_head_and_no_manifest(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    for _ in range(3):
        assert resolve(manifests) == OLD
        clock.now += 30.0
    assert origin.asked == [("GET", "1"), ("HEAD", "1"), ("HEAD", "1")]


def test_a_tag_that_moved_is_seen_after_the_interval_and_not_before(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    resolve(manifests)
    origin.now = NEW
    clock.now += 29.0
    assert resolve(manifests) == OLD
    clock.now += 1.0
    assert resolve(manifests) == NEW
    assert origin.asked == [("GET", "1"), ("HEAD", "1"), ("GET", "1")]


def test_a_registry_that_tells_no_digest_is_asked_for_the_manifest(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    resolve(manifests)
    origin.silent, origin.now = True, NEW
    clock.now += 30.0
    assert resolve(manifests) == NEW


def test_a_digest_that_another_registry_merely_names_is_no_way_to_what_is_kept(manifests: Manifests, origin: FakeOrigin) -> None:
    resolve(manifests, credential=ALICE)
    assert manifests.kept(OLD.digest)
    origin.asked.clear()
    manifests.resolve("evil.test", REPOSITORY, "1")
    manifests.resolve("evil.test", REPOSITORY, OLD.digest)
    assert origin.asked == [("GET", "1"), ("GET", OLD.digest)], "it has to show the manifest itself"


def test_what_one_credential_was_shown_another_one_has_to_ask_for(manifests: Manifests, origin: FakeOrigin) -> None:
    assert resolve(manifests, credential=ALICE) == OLD
    origin.error = OriginError(401, "not you", "UNAUTHORIZED")
    for credential in (None, BOB, Credential("alice", "b")):
        with pytest.raises(OriginError, match="not you"):
            resolve(manifests, credential=credential)
    assert resolve(manifests, credential=ALICE) == OLD


def test_a_digest_is_asked_for_again_only_when_its_verdict_is_old(manifests: Manifests, origin: FakeOrigin, clock: Clock) -> None:
    assert resolve(manifests, OLD.digest) == OLD
    clock.now += VERDICT_SECONDS - 1
    assert resolve(manifests, OLD.digest) == OLD
    assert origin.asked == [("GET", OLD.digest)]
    clock.now += 1
    assert resolve(manifests, OLD.digest) == OLD
    assert origin.asked[1:] == [("HEAD", OLD.digest)]


@pytest.mark.parametrize("error", [DOWN, OriginError(502, "cannot be reached"), OriginError(429, "slow down", "TOOMANYREQUESTS")])
def test_the_last_answer_is_used_while_the_origin_cannot_answer_and_said_to_be_old(
    manifests: Manifests, origin: FakeOrigin, clock: Clock, error: OriginError
) -> None:
    assert not resolve(manifests).stale
    origin.error = error
    clock.now += DAY - 1
    assert resolve(manifests) == OLD.as_stale()
    clock.now += 1
    with pytest.raises(OriginError, match=str(error)):
        resolve(manifests)


def test_an_origin_that_does_not_answer_is_not_waited_for_by_everybody(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    resolve(manifests)
    origin.error = DOWN
    clock.now += 30.0
    for _ in range(5):
        assert resolve(manifests).stale
        clock.now += 1.9
    assert len(origin.asked) == 2
    clock.now += 1.0
    origin.error, origin.now = None, NEW
    assert resolve(manifests) == NEW


def test_without_a_last_answer_an_origin_that_does_not_answer_is_asked_each_time(
    manifests: Manifests, origin: FakeOrigin
) -> None:
    origin.error = DOWN
    for _ in range(2):
        with pytest.raises(OriginError, match="did not answer"):
            resolve(manifests)
    assert len(origin.asked) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
def test_the_origins_own_refusal_ends_what_it_allowed_before(
    manifests: Manifests, origin: FakeOrigin, clock: Clock, status: int
) -> None:
    resolve(manifests)
    clock.now += 30.0
    origin.error = OriginError(status, "gone", "DENIED")
    with pytest.raises(OriginError, match="gone"):
        resolve(manifests)
    origin.error = DOWN
    with pytest.raises(OriginError, match="did not answer"):
        resolve(manifests)


def test_wrong_bytes_are_said_to_be_wrong_and_nothing_old_is_used_instead(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    resolve(manifests)
    clock.now += 30.0
    origin.error = DigestError("something else")
    with pytest.raises(DigestError):
        resolve(manifests)


def test_fifty_who_ask_the_same_at_once_are_one_question(manifests: Manifests, origin: FakeOrigin) -> None:
    origin.gate.clear()
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(resolve, manifests) for _ in range(50)]
        end = time.monotonic() + 20
        while pool._work_queue.qsize() or not origin.asked:
            assert time.monotonic() < end
            time.sleep(0.01)
        origin.gate.set()
        assert {answer.result(20) for answer in answers} == {OLD}
    assert origin.asked == [("GET", "1")]


def test_fifty_who_ask_the_same_share_the_failure_too(manifests: Manifests, origin: FakeOrigin) -> None:
    origin.gate.clear()
    origin.error = DOWN
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(resolve, manifests) for _ in range(50)]
        time.sleep(0.5)
        origin.gate.set()
        assert all(isinstance(answer.exception(20), OriginError) for answer in answers)
    assert len(origin.asked) < 5, "those who came after the failure asked again"
    origin.error = None
    assert resolve(manifests) == OLD


def test_whoever_waits_for_anothers_question_does_not_wait_for_ever(
    manifests: Manifests, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAIT_SECONDS_MAX", 0.1)
    origin.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(resolve, manifests)
        while not origin.asked:
            time.sleep(0.01)
        with pytest.raises(OriginError, match="did not answer in time") as failed:
            resolve(manifests)
        assert failed.value.status == 504
        origin.gate.set()
        assert first.result(20) == OLD


def test_what_was_answered_is_known_after_a_restart(
    manifests: Manifests, origin: FakeOrigin, clock: Clock, tmp_path: Path
) -> None:
    resolve(manifests)
    again = begin(tmp_path, origin, clock)
    assert resolve(again) == OLD
    origin.error = DOWN
    clock.now += 3600.0
    assert resolve(again).stale
    assert len(origin.asked) == 2


def test_an_answer_from_the_future_is_asked_for_anew_and_still_better_than_none(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    """The wall clock jumped back."""
    resolve(manifests)
    clock.now -= 3600.0
    origin.now = NEW
    assert resolve(manifests) == NEW
    clock.now -= 3600.0
    origin.error = DOWN
    assert resolve(manifests) == NEW.as_stale()


def test_an_answer_that_was_learned_elsewhere_is_used_like_ones_own(
    manifests: Manifests, origin: FakeOrigin, clock: Clock
) -> None:
    manifests.remember(REGISTRY, REPOSITORY, "1", None, OLD)
    assert resolve(manifests) == OLD
    assert not origin.asked
    clock.now += 30.0
    assert resolve(manifests) == OLD
    assert origin.asked == [("HEAD", "1")]


def test_a_manifest_that_is_kept_answers_nobody_before_the_origin_did(manifests: Manifests, origin: FakeOrigin) -> None:
    manifests.keep(OLD)
    assert manifests.kept(OLD.digest) == OLD
    resolve(manifests)
    assert origin.asked == [("GET", "1")]


NO_UTF_8 = b"\x82\xaamedia_type\xa1\xff\xa4body\xc4\x00", b"\x82\xa6digest\xa1\xff\xa8asked_at\x00"
NO_TIME = b"\x82\xa6digest\xa0\xa8asked_at\xcb\x7f\xf8" + bytes(6)


@pytest.mark.parametrize("damage", [b"", b"garbage", b"\x92\xa1x\xc4\x01y", *NO_UTF_8, NO_TIME])
def test_a_damaged_file_is_as_if_it_were_not_there_and_is_replaced(
    manifests: Manifests, origin: FakeOrigin, clock: Clock, tmp_path: Path, damage: bytes
) -> None:
    resolve(manifests)
    for path in (tmp_path / "manifests").iterdir():
        path.write_bytes(damage)
    assert manifests.kept(OLD.digest) is None
    assert resolve(manifests) == OLD
    assert origin.asked == [("GET", "1")] * 2
    assert manifests.kept(OLD.digest) == OLD
    for path in (tmp_path / "tags").iterdir():
        path.write_bytes(damage)
    assert resolve(manifests) == OLD


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "sha256:..", "sha256:", "sha512:" + 128 * "0", "../tags"])
def test_no_digest_names_a_file_that_is_not_a_manifest(manifests: Manifests, digest: str) -> None:
    assert manifests.kept(digest) is None


def test_an_answer_that_cannot_be_written_is_right_all_the_same(
    manifests: Manifests, origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    assert resolve(manifests) == OLD
    assert resolve(manifests) == OLD
    assert len(origin.asked) == 2


def test_what_nobody_asked_for_in_a_long_time_is_dropped(manifests: Manifests, origin: FakeOrigin, tmp_path: Path) -> None:
    resolve(manifests)
    manifests.keep(NEW)
    for path in (tmp_path / "manifests" / NEW.digest.removeprefix("sha256:"), tmp_path / "tags" / ".left by a crash"):
        path.touch()
        os.utime(path, (1, 1))
    manifests.evict_old(DAY)
    assert [path.name for path in (tmp_path / "manifests").iterdir()] == [OLD.digest.removeprefix("sha256:")]
    assert len(list((tmp_path / "tags").iterdir())) == 1


def test_a_manifest_that_is_asked_for_again_and_again_does_not_grow_old(
    manifests: Manifests, clock: Clock, tmp_path: Path
) -> None:
    resolve(manifests)
    path = tmp_path / "manifests" / OLD.digest.removeprefix("sha256:")
    os.utime(path, (1, 1))
    clock.now += 30.0
    resolve(manifests)
    manifests.evict_old(DAY)
    assert path.exists()


def test_no_more_is_kept_than_there_is_a_limit_for(
    manifests: Manifests, origin: FakeOrigin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ANSWERS_MAX", 3)
    for number in range(5):
        resolve(manifests, str(number))
    manifests.evict_old(DAY)
    assert len(list((tmp_path / "tags").iterdir())) == 3


def test_manifests_have_a_part_of_the_quota_and_those_asked_for_last_have_it(tmp_path: Path, origin: FakeOrigin) -> None:
    """FAULTS 95."""
    store = Store(tmp_path, quota=16 << 20, free=0, age=DAY)
    manifests = Manifests(
        tmp_path,
        origin,
        interval=30.0,
        stale_if_error=DAY,
        bytes_max=store.room_for_manifests,
    )
    each = [Manifest.of(OLD.media_type, bytes([number]) * (512 << 10)) for number in range(40)]
    for number, manifest in enumerate(each):
        manifests.keep(manifest)
        os.utime(tmp_path / "manifests" / manifest.digest.removeprefix("sha256:"), (number + 1, number + 1))
        assert manifests.bytes_kept <= store.room_for_manifests() == 2 << 20
    assert manifests.kept(each[-1].digest)
    assert not (tmp_path / "manifests" / each[0].digest.removeprefix("sha256:")).exists()
    again = Manifests(tmp_path, origin, interval=30.0, stale_if_error=DAY)
    assert again.bytes_kept == manifests.bytes_kept > 0
    store.close()


# Tags that are listed as fresh, and tags that are to be forgotten.


@pytest.fixture
def fresh(tmp_path: Path, origin: FakeOrigin, clock: Clock) -> Manifests:
    return begin(tmp_path, origin, clock, ":latest")


def test_a_fresh_tag_is_asked_for_at_every_pull_and_others_in_the_same_repository_are_not(
    fresh: Manifests, origin: FakeOrigin
) -> None:
    assert resolve(fresh, "latest") == resolve(fresh, "1") == OLD
    origin.now = NEW
    assert resolve(fresh, "latest") == NEW
    assert resolve(fresh, "latest") == NEW
    assert resolve(fresh, "1") == OLD
    asked = [("GET", "latest"), ("GET", "1"), ("HEAD", "latest"), ("GET", "latest"), ("HEAD", "latest")]
    assert origin.asked == asked, "a HEAD is enough while nothing was pushed"


def test_a_digest_is_believed_as_long_as_ever_whatever_is_fresh(tmp_path: Path, origin: FakeOrigin, clock: Clock) -> None:
    manifests = begin(tmp_path, origin, clock, "*:*")
    for _ in range(3):
        assert resolve(manifests, OLD.digest) == OLD
    assert len(origin.asked) == 1


def test_fifty_who_ask_for_a_fresh_tag_at_once_are_one_head_and_whoever_comes_later_is_another(
    fresh: Manifests, origin: FakeOrigin
) -> None:
    resolve(fresh, "latest")
    origin.gate.clear()
    with ThreadPoolExecutor(50) as pool:
        answers = [pool.submit(resolve, fresh, "latest") for _ in range(50)]
        end = time.monotonic() + 20
        while pool._work_queue.qsize() or len(origin.asked) < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        time.sleep(0.2)
        origin.gate.set()
        assert {answer.result(20) for answer in answers} == {OLD}
    assert origin.asked == [("GET", "latest"), ("HEAD", "latest")]
    resolve(fresh, "latest")
    assert len(origin.asked) == 3


@pytest.mark.parametrize("error", [DOWN, OriginError(429, "too many requests"), OriginError(503, "maintenance")])
def test_a_fresh_tag_means_what_it_last_meant_while_the_origin_cannot_be_asked_and_says_so(
    fresh: Manifests, origin: FakeOrigin, clock: Clock, error: OriginError
) -> None:
    resolve(fresh, "latest")
    origin.error = error
    for _ in range(3):
        assert resolve(fresh, "latest") == OLD.as_stale()
    assert len(origin.asked) == 2, "as before: for ten seconds it is not asked again"
    origin.error, origin.now = None, NEW
    clock.now += 10.0
    assert resolve(fresh, "latest") == NEW


def test_a_forgotten_tag_is_asked_for_by_every_credential_and_other_tags_are_not(
    manifests: Manifests, origin: FakeOrigin
) -> None:
    for credential in (None, ALICE, BOB):
        resolve(manifests, "1", credential)
    resolve(manifests, "2")
    origin.now = NEW
    assert manifests.forget(REGISTRY, REPOSITORY, "1") == 3
    assert manifests.forget(REGISTRY, REPOSITORY, "1") == 0
    assert [resolve(manifests, "1", credential) for credential in (None, ALICE, BOB)] == [NEW] * 3
    assert resolve(manifests, "2") == OLD
    assert manifests.kept(OLD.digest) == OLD


def test_an_answer_that_was_asked_for_before_the_tag_was_forgotten_is_not_kept(manifests: Manifests, origin: FakeOrigin) -> None:
    origin.gate.clear()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(resolve, manifests)
        while not origin.asked:
            time.sleep(0.01)
        manifests.forget(REGISTRY, REPOSITORY, "1")
        origin.gate.set()
        assert first.result(20) == OLD
    origin.now = NEW
    assert resolve(manifests) == NEW
