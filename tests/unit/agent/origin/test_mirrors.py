"""FAULTS 68: mirrors are asked first, with what is theirs, and the registry itself last; a mirror's failure costs one try."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from agent.origin import client as origin_client
from agent.origin.client import Origin as Client
from agent.origin.mirrors import KEPT_AWAY_SECONDS_MAX, KEPT_AWAY_SECONDS_MIN, Mirror, Mirrors, mirror
from agent.values.credential import Credential
from agent.values.errors import DigestError, OriginError
from hack.origin import Access, Fault, Image, Origin
from tests.origins import Scripted, drain, http, look_up

REPOSITORY = "team/app"
LAYER = b"layer" * 100_000
IMAGE = Image.of([LAYER])
DIGEST = IMAGE.layers[0]
ALICE = Credential("alice", "s3cret")
ROBOT = Credential("robot", "other")
REGISTRY = "registry.test"


@pytest.fixture
def registry() -> Iterator[Origin]:
    with Origin(access=Access({"alice": "s3cret"}, frozenset({"team/private"}))) as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        origin.push("team/private", "1", IMAGE)
        yield origin


@pytest.fixture
def cache() -> Iterator[Origin]:
    """A mirror that has the image under a prefix."""
    with Origin() as origin:
        origin.push(f"hub/{REPOSITORY}", "1", IMAGE)
        yield origin


def client_of(registry: Origin, *endpoints: str, **more: object) -> Client:
    """One whose registry has these mirrors, in order."""
    mirrors = [mirror(f"{registry.address}={endpoint}") for endpoint in endpoints]
    return Client([registry.address], [], look_up(), mirrors=mirrors, **more)  # type: ignore[arg-type]


def everything(client: Client, registry: Origin, credential: Credential | None = None) -> None:
    """All that is asked of a registry, and rightly answered."""
    name = registry.address
    assert client.digest_of(name, REPOSITORY, "1", credential) == IMAGE.digest
    assert client.manifest(name, REPOSITORY, "1", credential).digest == IMAGE.digest
    assert client.manifest(name, REPOSITORY, IMAGE.digest, credential).digest == IMAGE.digest
    assert client.blob_size(name, REPOSITORY, DIGEST, credential) == len(LAYER)
    assert b'"1"' in client.listing(name, REPOSITORY, f"/v2/{REPOSITORY}/tags/list?n=5", credential)[1]
    stream = client.open_blob(name, REPOSITORY, DIGEST, credential)
    assert drain(stream.read_into) == LAYER
    stream.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("docker.io=https://m.example.com", Mirror("docker.io", "m.example.com", "", is_plain=False)),
        ("index.docker.io=https://M.example.com:8443/hub/x/", Mirror("docker.io", "m.example.com:8443", "hub/x", is_plain=False)),
        ("reg:5000=http://10.0.0.7:5000", Mirror("reg:5000", "10.0.0.7:5000", "", is_plain=True)),
    ],
)
def test_a_mirror_is_a_registry_and_a_url(text: str, expected: Mirror) -> None:
    assert mirror(text) == expected


@pytest.mark.parametrize(
    "text", ["docker.io", "docker.io=m.example.com", "docker.io=https://u:p@m", "d=https://m/Hub", "d=https://m/a?b"]
)
def test_what_is_no_mirror_is_refused_in_words(text: str) -> None:
    with pytest.raises(ValueError, match="is no mirror; write REGISTRY=https://"):
        mirror(text)


def test_a_password_in_a_mirrors_url_is_refused_and_not_said_again() -> None:
    with pytest.raises(ValueError, match=r"^'docker.io=https://m' is no mirror") as refused:
        mirror("docker.io=https://u:s3c/r@t@m")
    assert "s3c" not in str(refused.value)


def test_a_mirror_is_asked_for_everything_and_the_registry_for_nothing(registry: Origin, cache: Origin) -> None:
    everything(client_of(registry, f"{cache.url}/hub"), registry)
    assert not registry.requests
    assert cache.requests
    assert all(request.path.startswith(f"/v2/hub/{REPOSITORY}/") for request in cache.requests)
    assert not cache.asked("ns="), "the prefix says it already"


def test_a_mirror_without_a_prefix_is_told_which_registry_is_meant_as_containerd_tells_it(
    registry: Origin, cache: Origin
) -> None:
    cache.push(REPOSITORY, "1", IMAGE)
    everything(client_of(registry, cache.url), registry)
    assert not registry.requests
    assert len(cache.asked(f"ns={registry.address.replace(':', '%3A')}")) == len(cache.requests)
    assert cache.asked("tags/list?n=5&ns=")


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault(status=status) for status in (401, 403, 404, 429, 500, 503)),
        Fault(status=429, headers={"Retry-After": "60"}),
        Fault(status=200, body=b"<html>please log in</html>"),
        Fault(delay_seconds=60),
        Fault(cut_after=0),
    ],
    ids=["401", "403", "404", "429", "500", "503", "throttled", "login page", "silent", "reset"],
)
def test_a_mirror_that_does_not_help_leaves_the_registry_and_its_time(
    registry: Origin, cache: Origin, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_client, "ASK_SECONDS_MAX", 2.0)
    cache.fail(fault)
    client = client_of(registry, f"{cache.url}/hub")
    assert client.digest_of(registry.address, REPOSITORY, "1", ALICE) in (IMAGE.digest, None)
    assert client.manifest(registry.address, REPOSITORY, "1", ALICE).digest == IMAGE.digest
    everything(client, registry, ALICE)
    assert cache.requests
    client.close()


def test_a_mirror_that_refuses_connections_or_has_no_name_or_sends_another_manifest_is_passed_over(registry: Origin) -> None:
    gone = Origin()
    gone.start()
    gone.stop()
    with Scripted(http(200, Image.of([b"other"]).manifest)) as liar:
        everything(client_of(registry, gone.url, "https://nobody.test"), registry)
        client = client_of(registry, f"http://{liar.address}")
        assert client.manifest(registry.address, REPOSITORY, IMAGE.digest, None).digest == IMAGE.digest


def test_mirrors_are_asked_in_their_order(registry: Origin, cache: Origin) -> None:
    with Origin() as first:
        client = client_of(registry, first.url, f"{cache.url}/hub")
        assert client.manifest(registry.address, REPOSITORY, "1", None)
        assert (len(first.requests), len(cache.requests), len(registry.requests)) == (1, 1, 0)


def test_a_mirror_that_failed_is_not_waited_for_with_each_blob_and_is_tried_again_later(registry: Origin, cache: Origin) -> None:
    client, now = client_of(registry, f"{cache.url}/hub"), [0.0]
    client._mirrors._now = lambda: now[0]
    cache.fail(Fault(status=500))
    everything(client, registry)
    assert len(cache.requests) == 2, "once more at once, as any server that fails"
    now[0] += KEPT_AWAY_SECONDS_MIN
    cache.heal()
    asked = len(registry.requests)
    everything(client, registry)
    assert len(registry.requests) == asked


def test_a_mirror_that_goes_on_failing_is_kept_away_from_for_longer_and_longer() -> None:
    now, each = [0.0], mirror("docker.io=https://m.example.com")
    mirrors = Mirrors([each], lambda: now[0])
    for expected in (1, 2, 4, 8, 16, 30, 30):
        assert mirrors.of("docker.io") == ([each], [])
        mirrors.failed(each, OriginError(502, "gone"))
        mirrors.failed(each, OriginError(502, "gone"))
        now[0] += expected * KEPT_AWAY_SECONDS_MIN - 0.1
        assert mirrors.of("docker.io") == ([], [each])
        now[0] += 0.1
    assert KEPT_AWAY_SECONDS_MAX == 30 * KEPT_AWAY_SECONDS_MIN
    mirrors.worked(each)
    mirrors.failed(each, OriginError(404, "not here"))
    assert mirrors.of("docker.io") == ([each], [])
    assert mirrors.of("quay.io") == ([], [])


def test_a_mirror_that_has_not_the_image_is_well(registry: Origin, cache: Origin) -> None:
    registry.push(REPOSITORY, "2", IMAGE)
    client = client_of(registry, f"{cache.url}/hub")
    assert client.manifest(registry.address, REPOSITORY, "2", None)
    assert client.manifest(registry.address, REPOSITORY, "1", None)
    assert len(registry.requests) == 1


def test_a_mirror_that_failed_is_asked_all_the_same_when_the_registry_does_not_answer(registry: Origin, cache: Origin) -> None:
    """In a closed network there is no other way."""
    client = client_of(registry, f"{cache.url}/hub")
    cache.fail(Fault(status=500), times=2)
    assert client.manifest(registry.address, REPOSITORY, "1", None)
    assert len(registry.requests) == 1
    registry.stop()
    everything(client, registry)


def test_a_pulls_credential_never_goes_to_a_mirror(registry: Origin, cache: Origin) -> None:
    """Nor is what the mirror shows to everybody, or to nobody, what the registry shows."""
    private = Access({"robot": "other"}, frozenset({"hub/team/private"}))
    with Origin(access=private) as locked:
        locked.push("hub/team/private", "1", IMAGE)
        client = client_of(registry, f"{locked.url}/hub")
        assert client.manifest(registry.address, "team/private", "1", ALICE).digest == IMAGE.digest
        stream = client.open_blob(registry.address, "team/private", DIGEST, ALICE)
        assert drain(stream.read_into) == LAYER
        stream.close()
        assert not any(request.headers["Authorization"] for request in locked.requests)
        assert any(request.headers["Authorization"] == ALICE.header for request in registry.requests)
        with pytest.raises(OriginError) as refused:
            client.manifest(registry.address, "team/private", "1", None)
        assert refused.value.status == 401


@pytest.mark.parametrize("bearer", [False, True])
def test_a_mirror_is_asked_with_what_this_node_has_for_its_own_name(registry: Origin, bearer: bool) -> None:
    asked: list[str] = []

    def credentials(image: str) -> list[Credential]:
        asked.append(image)
        return [ALICE, ROBOT]  # the first is refused

    with Origin(access=Access({"robot": "other"}, frozenset({"hub/team/private"}), bearer)) as locked:
        locked.push("hub/team/private", "1", IMAGE)
        client = client_of(registry, f"{locked.url}/hub", credentials=credentials)
        assert client.manifest(registry.address, "team/private", "1", None).digest == IMAGE.digest
        assert not registry.requests
        assert set(asked) == {f"{locked.address}/hub/team/private"}


def test_a_blob_that_only_the_registry_has_is_opened_with_the_pulls_own_credential_or_not_at_all(registry: Origin) -> None:
    """A mirror that shows a manifest to everybody opens no blob of a registry that does not."""
    with Origin() as cache:
        cache.push("hub/team/private", "1", IMAGE)
        cache.fail(Fault(path="/blobs/", status=404))
        client = client_of(registry, f"{cache.url}/hub")
        assert client.manifest(registry.address, "team/private", "1", None)
        with pytest.raises(OriginError) as refused:
            client.open_blob(registry.address, "team/private", DIGEST, None)
        assert refused.value.status == 401
        with pytest.raises(OriginError):
            client.blob_size(registry.address, "team/private", DIGEST, None)


@pytest.mark.parametrize("ask", [lambda client, name: client.manifest(name, REPOSITORY, "1", None)])
def test_where_there_are_mirrors_the_registry_alone_is_not_blamed_for_its_silence(
    registry: Origin, cache: Origin, ask: Callable[[Client, str], object]
) -> None:
    """FAULTS 59: a registry that is charged is left alone, and pods then go past the mirror too."""
    client = client_of(registry, cache.url)  # has it not, without its prefix
    registry.stop()
    with pytest.raises(OriginError) as failed:
        ask(client, registry.address)
    assert (failed.value.status, failed.value.phrase) == (502, "")
    with pytest.raises(OriginError) as blamed:
        ask(client_of(registry), registry.address)
    assert blamed.value.phrase


def test_what_the_registry_says_itself_is_the_answer(registry: Origin, cache: Origin) -> None:
    client = client_of(registry, cache.url)
    cache.fail(Fault(status=500))
    with pytest.raises(OriginError) as refused:
        client.manifest(registry.address, REPOSITORY, "2", None)
    assert refused.value.status == 404
    assert client.blob_size(registry.address, REPOSITORY, "sha256:" + 64 * "0", None) is None


@pytest.mark.parametrize("fault", [Fault(cut_after=1000), Fault(stall_after=1000)], ids=["reset", "stall"])
def test_a_mirror_that_breaks_off_in_a_blob_is_kept_away_from_and_nobody_is_charged(
    registry: Origin, cache: Origin, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.origin.redirects.BODY_STALL_SECONDS_MAX", 0.5)
    cache.fail(fault)
    client = client_of(registry, f"{cache.url}/hub")
    stream = client.open_blob(registry.address, REPOSITORY, DIGEST, None)
    with pytest.raises(OriginError) as failed:
        drain(stream.read_into)
    assert failed.value.phrase == ""
    stream.close()
    rest = client.open_blob(registry.address, REPOSITORY, DIGEST, None, 1000)
    assert drain(rest.read_into) == LAYER[1000:]
    rest.close()
    assert len(registry.requests) == 1


def test_a_stream_that_is_aborted_is_no_fault_of_the_mirror(registry: Origin, cache: Origin) -> None:
    client = client_of(registry, f"{cache.url}/hub")
    cache.fail(Fault(stall_after=1000))
    stream = client.open_blob(registry.address, REPOSITORY, DIGEST, None)
    stream.abort()
    with pytest.raises(OriginError):
        drain(stream.read_into)
    stream.close()
    assert client._mirrors.of(registry.address)[0]


def test_a_mirror_whose_bytes_are_not_the_blobs_is_not_asked_for_that_blob_again(registry: Origin, cache: Origin) -> None:
    client = client_of(registry, f"{cache.url}/hub")
    stream = client.open_blob(registry.address, REPOSITORY, DIGEST, None)
    stream.deny(DigestError("others"))
    stream.close()
    client._mirrors.worked(*client._mirrors._failed)
    assert client._mirrors.of(registry.address, DIGEST) == ([], [])
    assert client._mirrors.of(registry.address)[0]
    stream = client.open_blob(registry.address, REPOSITORY, DIGEST, None)
    stream.deny(DigestError("the registry itself is asked whatever it sent"))
    stream.close()
    assert len(registry.requests) == 1


def test_a_mirror_that_wants_a_pause_is_not_waited_for_past_its_share(
    registry: Origin, cache: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_client, "ASK_SECONDS_MAX", 3.0)
    cache.fail(Fault(status=503, headers={"Retry-After": "5"}))
    client = client_of(registry, cache.url)
    assert client.manifest(registry.address, REPOSITORY, "1", None)
    assert len(cache.requests) == 1
    client.close()


def test_silent_mirrors_leave_the_registry_a_share_of_the_time(
    registry: Origin, cache: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(origin_client, "ASK_SECONDS_MAX", 3.0)
    with Origin() as second:
        cache.fail(Fault(delay_seconds=60))
        second.fail(Fault(delay_seconds=60))
        registry.fail(Fault(delay_seconds=0.3))
        client = client_of(registry, cache.url, second.url)
        began = time.monotonic()
        assert client.manifest(registry.address, REPOSITORY, "1", None)
        assert time.monotonic() - began >= 2.0
        client.close()
