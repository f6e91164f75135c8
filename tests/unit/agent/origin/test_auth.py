"""Who asks: the Basic and the Bearer token flow, with credentials and without, and who is never told a secret (row 21)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from email.message import Message
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.origin import auth
from agent.origin.client import Origin as Client
from agent.origin.destinations import NOT_ASKED
from agent.values.credential import Credential
from agent.values.errors import OriginError
from hack.origin import Access, Fault, Image, Origin
from tests.origins import Scripted, drain, http, look_up

REPOSITORY = "team/app"
IMAGE = Image.of([b"layer"])
ALICE = Credential("alice", "s3cret")
PRIVATE = frozenset({REPOSITORY})
USERS = {"alice": "s3cret"}


@pytest.fixture
def basic() -> Iterator[Origin]:
    with Origin(access=Access(USERS, PRIVATE)) as origin:
        origin.push(REPOSITORY, "1", IMAGE)
        yield origin


@pytest.fixture
def bearer() -> Iterator[Origin]:
    """Wants a token from everybody; one for the private repository only from its users."""
    with Origin(access=Access(USERS, PRIVATE, bearer=True)) as origin:
        for repository in (REPOSITORY, "open/app"):
            origin.push(repository, "1", IMAGE)
        yield origin


def client_of(*origins: Origin | Scripted) -> Client:
    return Client([str(origin.address) for origin in origins], [], look_up())


def asked(origin: Origin) -> list[tuple[str, int]]:
    return [(urlsplit(request.path).path, request.status) for request in origin.requests]


def secrets_in(headers: Message) -> bool:
    return ALICE.header in headers.values()


MANIFEST = f"/v2/{REPOSITORY}/manifests/1"
BLOB = f"/v2/{REPOSITORY}/blobs/{IMAGE.layers[0]}"


def test_basic_credentials_are_sent_when_they_are_asked_for_and_at_once_afterwards(basic: Origin) -> None:
    client = client_of(basic)
    assert client.manifest(basic.address, REPOSITORY, "1", ALICE).digest == IMAGE.digest
    assert client.blob_size(basic.address, REPOSITORY, IMAGE.layers[0], ALICE) == 5
    assert asked(basic) == [(MANIFEST, 401), (MANIFEST, 200), (BLOB, 200)]
    assert [secrets_in(request.headers) for request in basic.requests] == [False, True, True]


def test_whoever_sends_no_credential_is_asked_for_one(basic: Origin) -> None:
    with pytest.raises(OriginError, match="is not for everybody") as refused:
        client_of(basic).manifest(basic.address, REPOSITORY, "1", None)
    assert (refused.value.status, refused.value.code, refused.value.answered) == (401, "UNAUTHORIZED", True)
    assert asked(basic) == [(MANIFEST, 401)]


def test_a_wrong_password_is_refused_after_one_try_and_kept_from_what_the_right_one_opens(basic: Origin) -> None:
    client = client_of(basic)
    for credential, status in ((ALICE, 200), (Credential("alice", "wrong"), 401), (None, 401), (ALICE, 200)):
        if status == 200:
            assert client.manifest(basic.address, REPOSITORY, "1", credential)
            continue
        with pytest.raises(OriginError) as refused:
            client.manifest(basic.address, REPOSITORY, "1", credential)
        assert refused.value.status == 401
    assert [status for _, status in asked(basic)] == [401, 200, 401, 401, 401, 200]


def test_a_wrong_password_that_was_sent_is_not_sent_again_in_the_same_question(basic: Origin) -> None:
    client, wrong = client_of(basic), Credential("alice", "wrong")
    for expected in (2, 3):
        with pytest.raises(OriginError):
            client.manifest(basic.address, REPOSITORY, "1", wrong)
        assert len(basic.requests) == expected


def test_an_anonymous_token_is_fetched_and_used_while_it_is_good(bearer: Origin) -> None:
    client = client_of(bearer)
    for _ in range(3):
        assert client.manifest(bearer.address, "open/app", "1", None).digest == IMAGE.digest
    path = "/v2/open/app/manifests/1"
    assert asked(bearer) == [(path, 401), ("/token", 200), (path, 200), (path, 200), (path, 200)]
    query = parse_qs(urlsplit(bearer.requests[1].path).query)
    assert query == {"service": ["origin"], "scope": ["repository:open/app:pull"]}
    assert "Authorization" not in bearer.requests[1].headers


def test_a_token_for_credentials_is_for_them_alone(bearer: Origin) -> None:
    client = client_of(bearer)
    assert client.manifest(bearer.address, REPOSITORY, "1", ALICE)
    assert [secrets_in(request.headers) for request in bearer.requests] == [False, True, False]
    with pytest.raises(OriginError) as refused:
        client.manifest(bearer.address, REPOSITORY, "1", None)
    assert refused.value.status == 401


def test_the_bytes_of_a_blob_want_the_token_too(bearer: Origin) -> None:
    client = client_of(bearer)
    stream = client.open_blob(bearer.address, REPOSITORY, IMAGE.layers[0], ALICE)
    assert stream.size == 5
    stream.close()
    with pytest.raises(OriginError):
        client.open_blob(bearer.address, REPOSITORY, IMAGE.layers[0], None)


def test_a_token_that_is_good_no_more_is_fetched_anew_once(bearer: Origin) -> None:
    client = client_of(bearer)
    assert client.manifest(bearer.address, "open/app", "1", None)
    bearer.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(bearer)}), times=1)
    assert client.manifest(bearer.address, "open/app", "1", None)
    bearer.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(bearer)}))
    before = len(bearer.requests)
    with pytest.raises(OriginError) as refused:
        client.manifest(bearer.address, "open/app", "1", None)
    assert refused.value.status == 401
    assert len(bearer.requests) - before <= 3


def test_a_token_that_expires_at_once_is_fetched_each_time(bearer: Origin) -> None:
    client = client_of(bearer)
    bearer.repositories.access.token_seconds = -5
    for _ in range(2):
        assert client.manifest(bearer.address, "open/app", "1", None)
    assert [path for path, _ in asked(bearer)].count("/token") == 2


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, 401), (403, 401), (404, 404), (429, 429), (500, 502), (302, 502)],
)
def test_the_token_services_refusal_is_the_registrys(bearer: Origin, status: int, said: int) -> None:
    bearer.fail(Fault(path="/token", status=status, body=b'{"errors": [{"code": "NO", "message": "not you"}]}'))
    with pytest.raises(
        OriginError, match=rf"the token service of the registry {bearer.address} answered {status} .*not you"
    ) as refused:
        client_of(bearer).manifest(bearer.address, "open/app", "1", None)
    assert refused.value.status == said


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b'{"token": ""}',
        b'{"token": "a\\r\\nX: y"}',
        b'{"token": "\xc3\xa4"}',
        json.dumps({"token": "x" * (1 << 20)}).encode(),
        b'{"token": ' * 100_000,
    ],
    ids=["nothing", "html", "empty", "two lines", "not ascii", "1 MiB", "deep"],
)
def test_what_is_no_token_is_not_sent(bearer: Origin, body: bytes) -> None:
    bearer.fail(Fault(path="/token", status=200, body=body))
    with pytest.raises(OriginError, match="did not answer with a token") as failed:
        client_of(bearer).manifest(bearer.address, "open/app", "1", None)
    assert failed.value.status == 502
    assert [path for path, _ in asked(bearer)] == ["/v2/open/app/manifests/1", "/token"]


def challenge(origin: Origin | Scripted, realm: str = "") -> str:
    return f'Bearer realm="{realm or f"http://{origin.address}/token"}",service="origin"'


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Negotiate",
        'Digest realm="x"',
        "Bearer",
        'Bearer realm=""',
        'Bearer realm="not a url"',
        'Bearer realm="http://[::1"',
        'Bearer realm="ftp://127.0.0.1/token"',
        'Bearer realm="' + "x" * 10_000 + '"',
        "Bearer " + ",".join(f'a{number}="b"' for number in range(500)),
    ],
)
def test_a_challenge_that_cannot_be_met_leaves_the_registrys_first_answer(basic: Origin, header: str) -> None:
    basic.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": header}))
    for credential in (None, ALICE):
        with pytest.raises(OriginError) as refused:
            client_of(basic).manifest(basic.address, REPOSITORY, "1", credential)
        assert refused.value.status == 401
    assert not any(secrets_in(request.headers) for request in basic.requests)


def test_a_realm_may_have_a_query_of_its_own(bearer: Origin) -> None:
    realm = f"http://{bearer.address}/token?account=x"
    bearer.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(bearer, realm)}), times=1)
    assert client_of(bearer).manifest(bearer.address, "open/app", "1", None)
    assert bearer.requests[1].path == "/token?account=x&service=origin&scope=repository%3Aopen%2Fapp%3Apull"


def test_credentials_do_not_go_to_a_token_service_of_another_domain(basic: Origin) -> None:
    with Scripted(http(200, b'{"token": "x"}')) as foreign:
        client = Client([basic.address, f"foreign.test:{foreign.address.port}"], [], look_up(foreign_test="127.0.0.1"))
        realm = f"http://foreign.test:{foreign.address.port}/token"
        basic.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(basic, realm)}))
        with pytest.raises(OriginError, match=r"foreign\.test, which is not of its domain") as refused:
            client.manifest(basic.address, REPOSITORY, "1", ALICE)
        assert refused.value.status == NOT_ASKED, "so that the webhook leaves this registry alone (FAULTS 64)"
        assert not foreign.requests, "not even asked"
        with pytest.raises(OriginError):  # whoever has no secret may ask there
            client.manifest(basic.address, REPOSITORY, "1", None)
        assert len(foreign.requests) == 1


@pytest.mark.parametrize("realm", ["http://169.254.169.254/latest/meta-data", "https://127.0.0.1/token", "http://far.test/token"])
def test_a_realm_goes_through_the_rules_for_destinations(basic: Origin, realm: str) -> None:
    client = Client([basic.address], [], look_up(far_test="93.184.216.34"))
    basic.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(basic, realm)}))
    with pytest.raises(OriginError, match="has its tokens where none are asked for") as refused:
        client.manifest(basic.address, REPOSITORY, "1", None)
    assert (refused.value.status, refused.value.code) == (401, "UNAUTHORIZED")


def test_credentials_go_to_a_token_service_of_another_domain_that_is_listed_for_their_registry(bearer: Origin) -> None:
    """FAULTS 64."""
    realm = f"http://foreign.test:{bearer.address.partition(':')[2]}/token"
    bearer.fail(Fault(path="/manifests/", status=401, headers={"WWW-Authenticate": challenge(bearer, realm)}), times=2)
    listed = [bearer.address, realm.split("/")[2]]
    for trusted in (["other.test=foreign.test", f"{bearer.address}=other.test"], [f"{bearer.address}=Foreign.test"]):
        client = Client(listed, [], look_up(foreign_test="127.0.0.1"), trusted_realms=trusted)
        if len(trusted) == 1:
            assert client.manifest(bearer.address, REPOSITORY, "1", ALICE).digest == IMAGE.digest
        else:
            with pytest.raises(OriginError, match=f"list {bearer.address}=foreign.test as a trusted realm"):
                client.manifest(bearer.address, REPOSITORY, "1", ALICE)


def test_a_registry_that_a_redirect_led_to_gets_an_anonymous_token_of_its_own(bearer: Origin) -> None:
    """FAULTS 63: and no credential of the first one is sent to it, nor to its token service."""
    with Origin(access=Access(bearer=True)) as other:
        other.push(REPOSITORY, "1", IMAGE)
        bearer.fail(Fault(path="/blobs/", status=307, headers={"Location": f"http://{other.address}{BLOB}"}))
        client = client_of(bearer, other)
        for credential in (ALICE, None):
            size = client.blob_size(bearer.address, REPOSITORY, IMAGE.layers[0], credential)
            stream = client.open_blob(bearer.address, REPOSITORY, IMAGE.layers[0], credential)
            assert drain(stream.read_into) == b"layer"
            assert size == stream.size == 5
            stream.close()
        assert not any(secrets_in(request.headers) for request in other.requests)
        assert {request.headers["Authorization"] for request in other.requests} <= {None, f"Bearer /{REPOSITORY}"}


def test_a_registry_that_a_redirect_led_to_and_that_wants_more_than_that_refuses(bearer: Origin) -> None:
    """FAULTS 63."""
    with Origin(access=Access(USERS, PRIVATE, bearer=True)) as other:
        other.push(REPOSITORY, "1", IMAGE)
        bearer.fail(Fault(path="/blobs/", status=307, headers={"Location": f"http://{other.address}{BLOB}"}))
        with pytest.raises(OriginError) as refused:
            client_of(bearer, other).open_blob(bearer.address, REPOSITORY, IMAGE.layers[0], ALICE)
        assert refused.value.status == 401
        assert not any(secrets_in(request.headers) for request in other.requests)


def test_a_token_service_that_redirects_elsewhere_is_followed_by_the_rules_and_without_the_secret(bearer: Origin) -> None:
    with Scripted(http(200, b'{"token": "alice/team/app"}')) as foreign:
        client = client_of(bearer, foreign)
        bearer.fail(Fault(path="/token", status=302, headers={"Location": f"http://{foreign.address}/token"}), times=1)
        assert client.manifest(bearer.address, REPOSITORY, "1", ALICE)
        assert b"authorization" not in foreign.requests[0].lower()
        bearer.fail(Fault(path="/token", status=302, headers={"Location": "http://169.254.169.254/token"}))
        with pytest.raises(OriginError) as refused:
            client.manifest(bearer.address, "open/app", "1", ALICE)
        assert refused.value.status == 401


def test_what_is_remembered_has_a_limit(basic: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auth, "REMEMBERED_MAX", 3)
    client = client_of(basic)
    for number in range(5):
        with pytest.raises(OriginError):
            client.manifest(basic.address, REPOSITORY, "1", Credential(f"user{number}", "x"))
    assert len(client._authorizer._remembered) == 3


def test_no_secret_is_in_what_is_said_of_a_credential() -> None:
    assert "s3cret" not in repr(ALICE)
