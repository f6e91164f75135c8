"""Redirects: each hop is checked anew, and what proves who asks stays where it belongs (row 20)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.origin.client import Origin as Client
from agent.origin.redirects import REDIRECTS_MAX
from agent.values.credential import Credential
from agent.values.errors import OriginError
from hack.origin import Access, Fault, Image, Origin
from tests.origins import Scripted, drain, http, look_up

REPOSITORY = "team/app"
LAYER = b"layer" * 1000
IMAGE = Image.of([LAYER])
DIGEST = IMAGE.layers[0]
ALICE = Credential("alice", "s3cret")


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin(access=Access({"alice": "s3cret"}, frozenset({REPOSITORY}))) as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        yield origin


def redirect(origin: Origin, location: str, status: int = 307, times: float = float("inf")) -> None:
    """Blobs are elsewhere, for whoever may have them."""
    origin.fail(Fault(path="/blobs/", status=status, headers={"Location": location}), times)


def pull(client: Client, origin: Origin, start: int = 0) -> bytes:
    client.manifest(origin.address, REPOSITORY, "1", ALICE)  # from now on the credential is sent at once
    stream = client.open_blob(origin.address, REPOSITORY, DIGEST, ALICE, start)
    try:
        return drain(stream.read_into)
    finally:
        stream.close()


def part(client: Client, origin: Origin, start: int, end: int) -> bytes:
    stream = client.open_blob(origin.address, REPOSITORY, DIGEST, ALICE, start, end=end)
    try:
        return drain(stream.read_into)
    finally:
        stream.close()


def http_part(start: int, end: int) -> bytes:
    return http(206, LAYER[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(LAYER)}")


def test_further_parts_come_from_where_the_registry_sent_this_client_without_asking_the_registry_again(origin: Origin) -> None:
    with Scripted(http_part(0, 100), http_part(100, 200)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/blob?signature=1")
        client = Client([origin.address, str(elsewhere.address)], [])
        assert part(client, origin, 0, 100) + part(client, origin, 100, 200) == LAYER[:200]
    assert len([asked for asked in origin.asked(DIGEST) if asked.status == 307]) == 1
    assert all(b"authorization" not in asked.lower() for asked in elsewhere.requests)


def test_where_a_url_has_run_out_the_registry_is_asked_anew(origin: Origin) -> None:
    with Scripted(http_part(0, 100), http(403, b"expired"), http_part(100, 200)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/blob?signature=1")
        client = Client([origin.address, str(elsewhere.address)], [])
        assert part(client, origin, 0, 100) + part(client, origin, 100, 200) == LAYER[:200]
    assert len([asked for asked in origin.asked(DIGEST) if asked.status == 307]) == 2


def test_where_one_client_was_sent_is_told_to_no_other(origin: Origin) -> None:
    with Scripted(http_part(0, 100)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/blob?signature=1", times=1)
        client = Client([origin.address, str(elsewhere.address)], [])
        assert part(client, origin, 0, 100) == LAYER[:100]
        with pytest.raises(OriginError) as refused:
            client.open_blob(origin.address, REPOSITORY, DIGEST, None, 100, end=200)
    assert refused.value.status == 401


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_blob_is_followed_to_where_it_lies_and_the_credential_stays_behind(origin: Origin, status: int) -> None:
    with Scripted(http(200, LAYER)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/bucket/blob?signature=a%2Fb", status)
        assert pull(Client([origin.address, str(elsewhere.address)], []), origin) == LAYER
    assert elsewhere.requests[0].startswith(b"GET /bucket/blob?signature=a%2Fb HTTP/1.1\r\n")
    assert b"authorization" not in elsewhere.requests[0].lower()
    assert f"host: {elsewhere.address}\r\n".encode() in elsewhere.requests[0].lower()
    assert origin.asked(DIGEST)[0].headers["Authorization"] == ALICE.header


def test_a_range_is_asked_for_at_the_end_of_the_way_too(origin: Origin) -> None:
    part = http(206, LAYER[100:], Content_Range=f"bytes 100-{len(LAYER) - 1}/{len(LAYER)}")
    with Scripted(part) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/blob")
        assert pull(Client([origin.address, str(elsewhere.address)], []), origin, start=100) == LAYER[100:]
    assert b"range: bytes=100-\r\n" in elsewhere.requests[0].lower()


def test_the_credential_goes_on_to_the_same_server_by_a_relative_way(origin: Origin) -> None:
    redirect(origin, f"/v2/{REPOSITORY}/blobs/{DIGEST}?again", times=1)
    assert pull(Client([origin.address], []), origin) == LAYER
    assert [request.headers["Authorization"] for request in origin.asked(DIGEST)] == [ALICE.header] * 2


def test_the_credential_is_gone_for_good_when_a_foreign_server_leads_back(origin: Origin) -> None:
    back = f"http://{origin.address}/v2/{REPOSITORY}/blobs/{DIGEST}"
    with Scripted(http(307, Location=back)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/", times=1)
        with pytest.raises(OriginError) as refused:
            pull(Client([origin.address, str(elsewhere.address)], []), origin)
    assert refused.value.status == 401
    assert [request.headers.get("Authorization") for request in origin.asked(DIGEST)][:2] == [ALICE.header, None]


def test_another_port_of_the_same_host_is_another_server(origin: Origin) -> None:
    with Scripted(http(200, LAYER)) as elsewhere:
        assert elsewhere.address.host == origin.address.partition(":")[0]
        redirect(origin, f"http://{elsewhere.address}/blob")
        pull(Client([origin.address, str(elsewhere.address)], []), origin)
    assert b"authorization" not in elsewhere.requests[0].lower()


@pytest.mark.parametrize("challenge", ['Basic realm="x"', 'Bearer realm="http://127.0.0.1:1/token"'])
def test_a_server_that_a_redirect_led_to_asks_for_credentials_in_vain(origin: Origin, challenge: str) -> None:
    with Scripted(http(401, WWW_Authenticate=challenge)) as elsewhere:
        redirect(origin, f"http://{elsewhere.address}/blob")
        with pytest.raises(OriginError) as refused:
            pull(Client([origin.address, str(elsewhere.address)], []), origin)
        assert refused.value.status == 401
        assert len(elsewhere.requests) == 1


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://169.254.169.254/latest/meta-data/", "over HTTPS only"),
        ("https://169.254.169.254/", "a link-local address"),
        ("https://metadata.test/", "a link-local address"),
        ("https://[::1]:10250/pods", "a loopback address"),
        ("https://[fe80::1]/", "a link-local address"),
        ("https://0.0.0.0/", "an unspecified address"),
        ("http://far.test/", "over HTTPS only"),
        ("//169.254.169.254/", "over HTTPS only"),
        ("file:///etc/passwd", "by other means than HTTPS"),
        ("https://alice:s3cret@far.test/", "by other means than HTTPS"),
        ("https://nobody.test/", "does not resolve"),
        ("https://[::1", "a URL that is none"),
        ("https://far.test:99999/", "a URL that is none"),
    ],
)
def test_every_hop_goes_through_the_rules_for_destinations(origin: Origin, location: str, why: str) -> None:
    names = look_up(metadata_test="169.254.169.254", far_test="93.184.216.34")

    def resolve(host: str, port: int) -> list[tuple[object, ...]]:
        return [(0, 0, 0, "", (host, port, 0, 0))] if ":" in host else names(host, port)

    client = Client([origin.address], [], resolve)
    redirect(origin, location)
    origin.fail(Fault(path="/manifests/2", status=307, headers={"Location": location}))
    for ask in (
        lambda: pull(client, origin),
        lambda: client.manifest(origin.address, REPOSITORY, "2", ALICE),
        lambda: client.digest_of(origin.address, REPOSITORY, "2", ALICE),
    ):
        with pytest.raises(OriginError, match=why) as refused:
            ask()
        assert str(refused.value).startswith(f"the registry {origin.address} cannot be asked: ")
        assert "s3cret" not in str(refused.value)


def test_a_loop_ends_after_five_redirects(origin: Origin) -> None:
    redirect(origin, f"/v2/{REPOSITORY}/blobs/{DIGEST}")
    with pytest.raises(OriginError, match="redirects more than 5 times") as failed:
        pull(Client([origin.address], []), origin)
    assert failed.value.status == 502
    assert len(origin.asked(DIGEST)) == 1 + REDIRECTS_MAX == 6


def test_a_question_is_followed_as_a_blob_is_and_the_credential_stays_behind(origin: Origin) -> None:
    with Scripted(http(200, IMAGE.manifest)) as elsewhere:
        location = f"http://{elsewhere.address}/bucket/sn\xf6?signature=a%2Fb"
        origin.fail(Fault(path="/manifests/", status=307, headers={"Location": location}))
        client = Client([origin.address, str(elsewhere.address)], [])
        assert client.manifest(origin.address, REPOSITORY, "1", ALICE).digest == IMAGE.digest
    assert elsewhere.requests[0].startswith(b"GET /bucket/sn%F6?signature=a%2Fb HTTP/1.1\r\n")
    assert f"host: {elsewhere.address}\r\n".encode() in elsewhere.requests[0].lower()
    assert b"authorization" not in elsewhere.requests[0].lower()
    assert b"cookie" not in elsewhere.requests[0].lower()


def test_a_signed_url_is_in_no_log(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    with Scripted(http(200, IMAGE.manifest)) as elsewhere:
        origin.fail(Fault(path="/manifests/", status=307, headers={"Location": f"http://{elsewhere.address}/?signature=s3cret"}))
        Client([origin.address, str(elsewhere.address)], []).manifest(origin.address, REPOSITORY, "1", ALICE)
    assert "s3cret" not in caplog.text


def test_a_redirect_to_nowhere_is_no_success(origin: Origin) -> None:
    origin.fail(Fault(path="/blobs/", status=302))
    with pytest.raises(OriginError) as failed:
        pull(Client([origin.address], []), origin)
    assert failed.value.status == 502


def test_a_login_page_at_the_end_of_the_way_is_no_manifest(origin: Origin) -> None:
    with Scripted(http(200, b"<html>please log in</html>", Content_Type="text/html")) as elsewhere:
        origin.fail(Fault(path="/manifests/", status=302, headers={"Location": f"http://{elsewhere.address}/login"}))
        with pytest.raises(OriginError, match="something that is no manifest"):
            Client([origin.address, str(elsewhere.address)], []).manifest(origin.address, REPOSITORY, "1", None)
