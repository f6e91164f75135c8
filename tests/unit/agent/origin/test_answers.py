"""What the origin client makes of a registry's answers: manifests, blobs, lists, and refusals in the registry's own words."""

from __future__ import annotations

import gzip
import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.origin import client as origin_client
from agent.origin.client import Origin as Client
from agent.values.errors import DigestError, OriginError, RangesError
from hack.origin import Fault, Image, Origin
from tests.origins import Scripted, drain, http, look_up

REPOSITORY = "team/app"
LAYER = bytes(range(256)) * 4000
IMAGE = Image.of([LAYER])
DIGEST = IMAGE.layers[0]


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        yield origin


@pytest.fixture
def client(origin: Origin) -> Iterator[Client]:
    client = Client([origin.address], [])
    yield client
    client.close()


def read(client: Client, origin: Origin, start: int = 0) -> tuple[int, bytes]:
    """Size of the blob, and its bytes from `start` on."""
    stream = client.open_blob(origin.address, REPOSITORY, DIGEST, None, start)
    try:
        return stream.size, drain(stream.read_into)
    finally:
        stream.close()


# Manifests.


@pytest.mark.parametrize("reference", ["1", IMAGE.digest])
def test_a_manifest_comes_verbatim_by_tag_and_by_digest(client: Client, origin: Origin, reference: str) -> None:
    manifest = client.manifest(origin.address, REPOSITORY, reference, None)
    assert (manifest.body, manifest.digest, manifest.media_type) == (IMAGE.manifest, IMAGE.digest, IMAGE.media_type)


def test_a_head_tells_what_a_tag_means_and_says_what_is_known_already(client: Client, origin: Origin) -> None:
    assert client.digest_of(origin.address, REPOSITORY, "1", None) == IMAGE.digest
    assert client.digest_of(origin.address, REPOSITORY, "1", None, known=IMAGE.digest) == IMAGE.digest
    assert [request.status for request in origin.requests] == [200, 304]
    moved = origin.push(REPOSITORY, "1", Image.of([b"new"]))
    assert client.digest_of(origin.address, REPOSITORY, "1", None, known=IMAGE.digest) == moved.digest


def test_a_registry_that_does_not_tell_the_digest_with_a_head_is_asked_for_the_manifest(client: Client, origin: Origin) -> None:
    origin.fail(Fault(methods=frozenset({"HEAD"}), headers={"Docker-Content-Digest": None}))
    assert client.digest_of(origin.address, REPOSITORY, "1", None) is None


def test_a_manifest_that_is_not_what_its_digest_names_is_refused(client: Client, origin: Origin) -> None:
    origin.fail(Fault(status=200, body=b'{"schemaVersion": 2}'))
    with pytest.raises(DigestError, match="sent something else than sha256:") as refused:
        client.manifest(origin.address, REPOSITORY, IMAGE.digest, None)
    assert origin.address in str(refused.value)


def test_a_manifest_that_is_not_what_the_registry_itself_says_is_refused(client: Client, origin: Origin) -> None:
    origin.fail(Fault(headers={"Docker-Content-Digest": "sha256:" + 64 * "0"}))
    with pytest.raises(DigestError):
        client.manifest(origin.address, REPOSITORY, "1", None)


@pytest.mark.parametrize(
    "body",
    [b"<html>please log in</html>", b"", b"[]", b'{"token": "x"}', b"[" * 100_000],
    ids=["html", "nothing", "list", "object", "deep"],
)
def test_what_is_no_manifest_is_not_taken_for_one(client: Client, origin: Origin, body: bytes) -> None:
    origin.fail(Fault(status=200, body=body, headers={"Content-Type": "text/html"}))
    with pytest.raises(OriginError, match="something that is no manifest"):
        client.manifest(origin.address, REPOSITORY, "1", None)


def test_any_content_is_a_manifest_when_it_has_the_digest_that_was_asked_for(client: Client, origin: Origin) -> None:
    body = b"\x00signature"
    origin.fail(Fault(status=200, body=body))
    assert client.manifest(origin.address, REPOSITORY, "sha256:" + hashlib.sha256(body).hexdigest(), None).body == body


def test_a_manifest_over_4_mib_is_refused(client: Client, origin: Origin) -> None:
    origin.fail(Fault(status=200, body=b'{"schemaVersion": 2' + b" " * (4 << 20) + b"}"))
    with pytest.raises(OriginError, match="more than 4194304 bytes"):
        client.manifest(origin.address, REPOSITORY, "1", None)


def test_a_manifest_that_breaks_off_is_none(client: Client, origin: Origin) -> None:
    origin.fail(Fault(cut_after=20))
    with pytest.raises(OriginError, match="did not answer whole") as failed:
        client.manifest(origin.address, REPOSITORY, "1", None)
    assert failed.value.status == 502


# Lists.


def test_tag_lists_and_referrers_are_passed_on_as_they_are(client: Client, origin: Origin) -> None:
    media_type, body = client.listing(origin.address, REPOSITORY, f"/v2/{REPOSITORY}/tags/list", None)
    assert (media_type, body) == ("application/json", b'{"name": "team/app", "tags": ["1"]}')
    media_type, body = client.listing(origin.address, REPOSITORY, f"/v2/{REPOSITORY}/referrers/{IMAGE.digest}", None)
    assert media_type == "application/vnd.oci.image.index.v1+json"
    assert b'"manifests": []' in body


@pytest.mark.parametrize("body", [b'{"password": "secret"}', b"<html>", b""])
def test_what_is_no_list_reaches_nobody(client: Client, origin: Origin, body: bytes) -> None:
    origin.fail(Fault(status=200, body=body))
    with pytest.raises(OriginError, match="something that is no list"):
        client.listing(origin.address, REPOSITORY, f"/v2/{REPOSITORY}/tags/list", None)


def test_the_list_of_a_repository_without_tags_is_one(client: Client, origin: Origin) -> None:
    origin.fail(Fault(status=200, body=b'{"name": "team/app", "tags": null}'))
    assert client.listing(origin.address, REPOSITORY, f"/v2/{REPOSITORY}/tags/list", None)[1].endswith(b"null}")


# Blobs.


def test_a_blob_comes_whole_or_from_a_byte_on(client: Client, origin: Origin) -> None:
    assert read(client, origin) == (len(LAYER), LAYER)
    assert read(client, origin, start=1000) == (len(LAYER), LAYER[1000:])
    assert origin.blob_bytes_sent == 2 * len(LAYER) - 1000


def test_without_a_limit_the_bytes_of_a_blob_never_pass_one(origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.origin.blobstream.slowed", lambda *_: pytest.fail("there is no limit"))
    assert read(Client([origin.address], [], paces=(None, None)), origin) == (len(LAYER), LAYER)


def test_where_ranges_are_not_known_the_bytes_before_are_skipped(client: Client, origin: Origin) -> None:
    origin.fail(Fault(status=200, body=LAYER))
    assert read(client, origin, start=300_000) == (len(LAYER), LAYER[300_000:])


def test_a_blob_that_became_shorter_than_what_is_here_already_is_said_to_be(client: Client, origin: Origin) -> None:
    origin.fail(Fault(status=200, body=b"short"))
    with pytest.raises(OriginError, match="a shorter blob than it had before"):
        read(client, origin, start=1000)


@pytest.mark.parametrize(
    "content_range",
    [
        None,
        "",
        "bytes 0-1023999/1024000",
        "bytes 1000-1023998/1024000",
        "bytes 1000-1023999/*",
        "bytes 1000-1023999/1024001",
        "pages 1-2/3",
    ],
)
def test_another_range_than_was_asked_for_is_refused(client: Client, origin: Origin, content_range: str | None) -> None:
    origin.fail(Fault(headers={"Content-Range": content_range}))
    with pytest.raises(OriginError, match="another range than it was asked for"):
        client.open_blob(origin.address, REPOSITORY, DIGEST, None, 1000)


@pytest.mark.parametrize(("start", "end"), [(0, 1000), (1000, 300_000), (len(LAYER) - 1, len(LAYER))])
def test_a_part_of_a_blob_is_asked_for_by_its_range_and_nothing_more_comes(
    client: Client, origin: Origin, start: int, end: int
) -> None:
    stream = client.open_blob(origin.address, REPOSITORY, DIGEST, None, start, end=end)
    assert (stream.size, drain(stream.read_into)) == (len(LAYER), LAYER[start:end])
    stream.close()
    assert origin.requests[-1].headers["Range"] == f"bytes={start}-{end - 1}"


@pytest.mark.parametrize("start", [0, 1000])
def test_a_registry_that_sends_the_whole_blob_in_place_of_a_part_is_said_to_know_no_ranges(
    client: Client, origin: Origin, start: int
) -> None:
    origin.fail(Fault(status=200, body=LAYER))
    with pytest.raises(RangesError, match="sends no part of a blob") as refused:
        client.open_blob(origin.address, REPOSITORY, DIGEST, None, start, end=5000)
    assert not refused.value.answered, "it has the blob: another way to ask may do"


@pytest.mark.parametrize(
    "content_range", ["bytes 1000-5000/1024000", "bytes 1000-1023999/1024000", "bytes 0-3999/1024000", "bytes 1000-4998/1024000"]
)
def test_another_part_than_was_asked_for_is_refused(client: Client, origin: Origin, content_range: str) -> None:
    origin.fail(Fault(headers={"Content-Range": content_range}))
    with pytest.raises(OriginError, match="another range than it was asked for") as refused:
        client.open_blob(origin.address, REPOSITORY, DIGEST, None, 1000, end=5000)
    assert not isinstance(refused.value, RangesError)


def test_a_part_of_a_blob_that_comes_encoded_cannot_be_had(client: Client, origin: Origin) -> None:
    """FAULTS 66: a part of the encoded bytes is none of the blob's."""
    client.sizes.learn(origin.address, REPOSITORY, {DIGEST: len(LAYER)})
    origin.fail(Fault(status=200, body=gzip.compress(LAYER), headers={"Content-Encoding": "gzip"}))
    with pytest.raises(RangesError):
        client.open_blob(origin.address, REPOSITORY, DIGEST, None, 1000, end=5000)


def test_a_range_whose_length_is_not_that_of_its_body_is_refused(client: Client, origin: Origin) -> None:
    origin.fail(Fault(headers={"Content-Length": "1000"}))
    with pytest.raises(OriginError, match="another range than it was asked for"):
        client.open_blob(origin.address, REPOSITORY, DIGEST, None, 1000)


def test_a_blob_without_a_length_that_no_manifest_lists_is_refused(client: Client, origin: Origin) -> None:
    origin.fail(Fault(headers={"Content-Length": None}))
    with pytest.raises(OriginError, match="does not say how long the blob is"):
        client.open_blob(origin.address, REPOSITORY, DIGEST, None)


@pytest.mark.parametrize("start", [0, 100_001])
def test_a_blob_without_a_length_is_as_long_as_its_manifest_says(client: Client, origin: Origin, start: int) -> None:
    """FAULTS 61."""
    client.manifest(origin.address, REPOSITORY, "1", None)
    origin.fail(Fault(chunked=True))
    assert read(client, origin, start) == (len(LAYER), LAYER[start:])
    assert client.blob_size(origin.address, REPOSITORY, DIGEST, None) == len(LAYER)


def test_the_registrys_own_length_is_taken_before_the_manifests(client: Client, origin: Origin) -> None:
    """FAULTS 61."""
    client.sizes.learn(origin.address, REPOSITORY, {DIGEST: 17})
    assert read(client, origin) == (len(LAYER), LAYER)


@pytest.mark.parametrize("start", [0, 300_001])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_blob_in_an_encoding_that_nobody_asked_for_is_decoded(
    client: Client, origin: Origin, start: int, chunked: bool
) -> None:
    """FAULTS 66. A part of the encoded bytes is of no use, so all of them are asked for."""
    client.manifest(origin.address, REPOSITORY, "1", None)
    coded = gzip.compress(LAYER[:1000]) + gzip.compress(LAYER[1000:])
    origin.fail(Fault(status=200, body=coded, headers={"Content-Encoding": "gzip"}, chunked=chunked))
    assert read(client, origin, start) == (len(LAYER), LAYER[start:])
    assert origin.requests[-1].headers["Accept-Encoding"] == "identity"


def test_a_part_of_encoded_bytes_is_not_taken(client: Client, origin: Origin) -> None:
    """FAULTS 66."""
    coded, headers = gzip.compress(LAYER), {"Content-Encoding": "gzip"}
    part = {**headers, "Content-Range": f"bytes 1000-{len(coded) - 1}/{len(coded)}"}
    client.sizes.learn(origin.address, REPOSITORY, {DIGEST: len(LAYER)})
    origin.fail(Fault(status=206, body=coded[1000:], headers=part | {"Content-Length": str(len(coded) - 1000)}), times=1)
    origin.fail(Fault(status=200, body=coded, headers=headers))
    assert read(client, origin, 1000) == (len(LAYER), LAYER[1000:])


@pytest.mark.parametrize("coding", ["gzip", "aws-chunked", "gzip, aws-chunked", "br"])
@pytest.mark.parametrize("start", [0, 1000])
def test_an_encoding_that_is_said_of_the_right_bytes_counts_for_nothing(
    client: Client, origin: Origin, coding: str, start: int
) -> None:
    """FAULTS 66: a layer is gzip by itself, and some stores say so, or how it was sent to them."""
    client.manifest(origin.address, REPOSITORY, "1", None)
    origin.fail(Fault(headers={"Content-Encoding": coding}))
    assert read(client, origin, start) == (len(LAYER), LAYER[start:])


@pytest.mark.parametrize("body", [b"no gzip", gzip.compress(LAYER)[:-4000]], ids=["none", "cut"])
def test_what_is_not_the_encoding_that_it_is_said_to_be_is_refused(client: Client, origin: Origin, body: bytes) -> None:
    """FAULTS 66."""
    client.manifest(origin.address, REPOSITORY, "1", None)
    origin.fail(Fault(status=200, body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(OriginError, match=f"the registry {origin.address} broke off.*gzip"):
        read(client, origin)


@pytest.mark.parametrize("reference", ["1", IMAGE.digest])
@pytest.mark.parametrize("body", [gzip.compress(IMAGE.manifest), IMAGE.manifest], ids=["encoded", "plain"])
def test_a_manifest_in_gzip_is_what_has_its_digest(client: Client, origin: Origin, reference: str, body: bytes) -> None:
    """FAULTS 66."""
    origin.fail(Fault(status=200, body=body, headers={"Content-Encoding": "gzip"}))
    assert client.manifest(origin.address, REPOSITORY, reference, None).body == IMAGE.manifest


def test_a_manifest_that_grows_over_its_limit_is_none(client: Client, origin: Origin) -> None:
    """FAULTS 66."""
    bomb = gzip.compress(b'{"schemaVersion": 2, "a": "' + b" " * (5 << 20) + b'"}')
    origin.fail(Fault(status=200, body=bomb, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(OriginError, match="no manifest"):
        client.manifest(origin.address, REPOSITORY, "1", None)


def test_a_list_in_gzip_is_decoded(client: Client, origin: Origin) -> None:
    """FAULTS 66."""
    origin.fail(Fault(status=200, body=gzip.compress(b'{"tags": ["1"]}'), headers={"Content-Encoding": "gzip"}))
    assert client.listing(origin.address, REPOSITORY, "/v2/team/app/tags/list", None)[1] == b'{"tags": ["1"]}'


def test_a_stream_that_breaks_off_names_the_registry(client: Client, origin: Origin) -> None:
    origin.fail(Fault(cut_after=300_000))
    with pytest.raises(OriginError, match=f"the registry {origin.address} broke off") as failed:
        read(client, origin)
    assert failed.value.status == 502


def test_a_stream_that_stalls_is_told_from_one_that_breaks_off(
    client: Client, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.origin.redirects.BODY_STALL_SECONDS_MAX", 0.3)
    origin.fail(Fault(stall_after=300_000))
    with pytest.raises(OriginError, match="stopped sending in the middle of a blob") as failed:
        read(client, origin)
    assert failed.value.status == 504


def test_the_size_of_a_blob_is_asked_without_its_bytes(client: Client, origin: Origin) -> None:
    assert client.blob_size(origin.address, REPOSITORY, DIGEST, None) == len(LAYER)
    assert client.blob_size(origin.address, REPOSITORY, "sha256:" + 64 * "0", None) is None
    assert origin.blob_bytes_sent == 0
    origin.fail(Fault(headers={"Content-Length": None}))
    with pytest.raises(OriginError, match="does not say how long"):
        client.blob_size(origin.address, REPOSITORY, DIGEST, None)


# Refusals.


@pytest.mark.parametrize(
    ("sent", "status", "code"),
    [
        (400, 400, "UNAVAILABLE"),
        (401, 401, "UNAUTHORIZED"),
        (403, 401, "UNAUTHORIZED"),
        (404, 404, "MANIFEST_UNKNOWN"),
        (418, 418, "UNAVAILABLE"),
        (421, 502, "UNAVAILABLE"),  # what the agent says itself of a registry that it does not ask
        (429, 429, "TOOMANYREQUESTS"),
        (500, 502, "UNAVAILABLE"),
        (503, 502, "UNAVAILABLE"),
        (302, 502, "UNAVAILABLE"),
        (204, 502, "UNAVAILABLE"),
        (206, 502, "UNAVAILABLE"),
    ],
)
def test_a_refusal_keeps_its_status_and_the_registrys_words(
    client: Client, origin: Origin, sent: int, status: int, code: str
) -> None:
    body = b'{"errors": [{"code": "TEAPOT", "message": "no coffee here"}]}'
    origin.fail(Fault(status=sent, body=b"" if sent == 204 else body))
    with pytest.raises(OriginError) as refused:
        client.manifest(origin.address, REPOSITORY, "1", None)
    assert (refused.value.status, refused.value.code) == (status, code)
    said = "" if sent == 204 else ": TEAPOT no coffee here"
    assert str(refused.value) == f"the registry {origin.address} answered {sent} for {REPOSITORY}{said}"


def test_an_unknown_blob_is_said_to_be_a_blob(client: Client, origin: Origin) -> None:
    with pytest.raises(OriginError) as refused:
        client.open_blob(origin.address, REPOSITORY, "sha256:" + 64 * "0", None)
    assert (refused.value.status, refused.value.code) == (404, "BLOB_UNKNOWN")


@pytest.mark.parametrize("body", [b"<html>" * 100, b'{"errors": "none"}', b"x" * 100_000, b"\xff\xfe", b'{"errors":' * 50_000])
def test_words_that_are_no_oci_error_are_not_passed_on(client: Client, origin: Origin, body: bytes) -> None:
    origin.fail(Fault(status=503, body=body))
    with pytest.raises(OriginError) as refused:
        client.manifest(origin.address, REPOSITORY, "1", None)
    assert str(refused.value) == f"the registry {origin.address} answered 503 for {REPOSITORY}"


def test_a_registrys_words_stay_on_one_short_line(client: Client, origin: Origin) -> None:
    origin.fail(
        Fault(status=404, body=b'{"errors": [{"code": "A", "message": "\\u001b[31mred\\r\\nGET / ' + b"x" * 9000 + b'"}]}')
    )
    with pytest.raises(OriginError) as refused:
        client.manifest(origin.address, REPOSITORY, "1", None)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


# Silence.


def test_a_registry_that_is_not_there_is_named(client: Client, origin: Origin) -> None:
    origin.stop()
    with pytest.raises(OriginError, match=f"the registry {origin.address} cannot be reached: ") as failed:
        client.manifest(origin.address, REPOSITORY, "1", None)
    assert (failed.value.status, failed.value.answered) == (502, False)


def test_a_registry_whose_name_does_not_resolve_is_named() -> None:
    client = Client([], [], look_up())
    with pytest.raises(OriginError, match=r"the registry nobody\.test:5000 cannot be asked: the name nobody\.test ") as failed:
        client.manifest("nobody.test:5000", REPOSITORY, "1", None)
    assert (failed.value.status, failed.value.answered) == (502, False)


def test_a_registry_that_is_silent_is_waited_for_once_whatever_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each redirect comes after a while, and the end is silence: one deadline holds for all of that."""
    monkeypatch.setattr(origin_client, "ASK_SECONDS_MAX", 1.0)
    with Scripted(lambda sock: (time.sleep(0.4), sock.sendall(http(302, Location="/again")))[0]) as server:
        client = Client([str(server.address)], [])
        began = time.monotonic()
        with pytest.raises(OriginError, match=f"the registry {server.address} did not answer in time") as failed:
            client.manifest(str(server.address), REPOSITORY, "1", None)
        assert (failed.value.status, failed.value.answered) == (504, False)
        assert time.monotonic() - began < 5
        client.close()


@pytest.mark.parametrize("sent_at_once", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n"], ids=["head", "body"])
def test_a_registry_that_sends_a_byte_now_and_then_is_waited_for_no_longer(
    sent_at_once: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each byte comes in time, and the deadline is for all of them."""
    monkeypatch.setattr(origin_client, "ASK_SECONDS_MAX", 1.0)

    def trickle(sock: socket.socket) -> None:
        sock.sendall(sent_at_once)
        for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"y" * 300:
            time.sleep(0.2)
            sock.sendall(bytes([byte]))

    with Scripted(trickle) as server:
        client = Client([str(server.address)], [])
        began = time.monotonic()
        with pytest.raises(OriginError, match=f"the registry {server.address} did not answer in time") as failed:
            client.manifest(str(server.address), REPOSITORY, "1", None)
        assert failed.value.status == 504
        assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"SSH-2.0-x\r\n", "did not answer in HTTP"),
        (b"", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "did not answer in HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100_000, "did not answer in HTTP"),
    ],
    ids=["another protocol", "nothing", "no length", "endless"],
)
def test_a_server_that_does_not_speak_http_is_named(answer: bytes, why: str) -> None:
    with Scripted(answer) as server, pytest.raises(OriginError, match=why) as failed:
        Client([str(server.address)], []).manifest(str(server.address), REPOSITORY, "1", None)
    assert failed.value.status == 502
    assert str(server.address) in str(failed.value)


def test_a_manifest_in_chunks_or_to_the_end_of_the_connection_is_read_as_well() -> None:
    body = IMAGE.manifest
    chunks = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    answers = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, b"HTTP/1.0 200 OK\r\n\r\n" + body]
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    with Scripted(*answers, early + answers[0]) as server:
        client = Client([str(server.address)], [])
        for _ in range(3):
            assert client.manifest(str(server.address), REPOSITORY, "1", None).digest == IMAGE.digest


def test_a_client_that_is_closed_ends_a_question_that_is_under_way() -> None:
    asked, answer = threading.Event(), threading.Event()
    with Scripted(lambda sock: (asked.set(), answer.wait(10))[0]) as server, ThreadPoolExecutor() as threads:
        client = Client([str(server.address)], [])
        under_way = threads.submit(client.manifest, str(server.address), REPOSITORY, "1", None)
        assert asked.wait(10)
        client.close()
        with pytest.raises(OriginError):
            under_way.result(5)
        answer.set()


def test_a_client_that_is_closed_asks_nobody_and_ends_what_is_under_way(client: Client, origin: Origin) -> None:
    origin.fail(Fault(stall_after=1000))
    stream = client.open_blob(origin.address, REPOSITORY, DIGEST, None)
    client.close()
    with pytest.raises(OriginError):
        drain(stream.read_into)
    stream.close()
    with pytest.raises(OriginError, match="stopping"):
        client.manifest(origin.address, REPOSITORY, "1", None)
