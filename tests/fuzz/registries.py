"""What registries, mirrors, token services, other nodes and supernodes answer to this node."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import socket
import threading
import time
from concurrent.futures import Future
from functools import cache
from typing import Any, cast

from agent.http.sealed import client_context
from agent.http.wire import buffer
from agent.origin.auth import Access, Authorizer
from agent.origin.blobstream import content_range
from agent.origin.client import Origin
from agent.origin.destinations import NOT_ASKED, DestinationError
from agent.origin.documents import is_listing, is_manifest, token_of, what_it_said
from agent.origin.redirects import Redirects
from agent.origin.shown import Sizes
from agent.origin.throttle import RETRY_AFTER_SECONDS_MAX, Throttle, retry_after
from agent.storage.blob import Blob
from agent.swarm import messages, tickets
from agent.swarm.channel import Channel, frame, supernode_message, warm_answer
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.tls import ProofError, SealedSocket
from agent.values.address import Address
from agent.values.credential import Credential, from_authorization, parse_challenge
from agent.values.errors import DarnerError, DigestError, OriginError, RequestError, SourceError
from agent.values.manifest import MEDIA_TYPE_DEFAULT, Manifest
from agent.values.pieces import Layout
from supernode.platforms import manifests_for
from tests.fuzz.servers import BETWEEN_BODIES, DIGEST, KEY, key_file
from tests.fuzz.sockets import HERE, NEXT_CONNECTION, said, servers_say
from tests.fuzz.target import Target

REGISTRY, REPOSITORY = "registry.test:5000", "team/app"
CREDENTIAL = Credential("someone", "a password")
ACCESS = Access(REGISTRY, REPOSITORY, CREDENTIAL)


def _look_up(host: str, port: int) -> list[tuple[Any, ...]]:
    host.encode("idna")  # as the system's own does
    return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", port))]


def _addresses(where: Address, until: float) -> list[str]:
    """As `Destinations` looks names up, without a thread for each."""
    try:
        return [str(address) for *_, (address, _) in _look_up(*where)]
    except ValueError:
        raise DestinationError(502, f"the name {where.host} does not resolve") from None


class _AtOnce(threading.Event):
    """Nobody waits: a pause that a registry asks for is over."""

    def wait(self, timeout: float | None = None) -> bool:
        return False


@cache
def _client() -> Origin:
    origin = Origin([REGISTRY, "other.test"], [], _look_up)
    origin._redirects._closed = _AtOnce()
    origin._destinations._addresses = _addresses  # type: ignore[method-assign]
    return origin


def _origin() -> Origin:
    """One that nobody has told anything yet."""
    origin = _client()
    origin.throttle, origin.sizes = Throttle(), Sizes()
    origin._authorizer._remembered.clear()
    return origin


def _manifest_answer(data: bytes) -> None:
    with servers_say(data):
        manifest = _origin().manifest(REGISTRY, REPOSITORY, "1", CREDENTIAL)
    manifest.lists()


def _digest_answer(data: bytes) -> None:
    with servers_say(data):
        _origin().digest_of(REGISTRY, REPOSITORY, "1", CREDENTIAL, DIGEST)


def _list_answer(data: bytes) -> None:
    with servers_say(data):
        media_type, _ = _origin().listing(REGISTRY, REPOSITORY, "tags/list", None)
    assert media_type.isprintable()


def _blob_answer(data: bytes) -> None:
    """From the tenth byte on if the first byte is odd."""
    start = 10 if data[:1] and data[0] & 1 else 0
    with servers_say(data[1:]):
        origin = _origin()
        origin.sizes.learn(REGISTRY, REPOSITORY, {DIGEST: 20})
        stream = origin.open_blob(REGISTRY, REPOSITORY, DIGEST, CREDENTIAL, start)
        with contextlib.closing(stream):
            while stream.read_into(buffer()):
                continue


def _blob_size_answer(data: bytes) -> None:
    with servers_say(data):
        size = _origin().blob_size(REGISTRY, REPOSITORY, DIGEST, None)
    assert size is None or size >= 0


def _location(data: bytes) -> None:
    hop = _client()._destinations.hop(data.decode("latin-1"), time.monotonic() + 60)
    hop.target.encode("ascii")


def _http_url(data: bytes) -> None:
    """Where a registry redirects to, which is then asked."""
    location = data.replace(b"\n", b"").replace(b"\r", b"")
    head = b"HTTP/1.1 307 Away\r\nContent-Length: 0\r\nLocation: " + location + b"\r\n\r\n"
    with servers_say(head + NEXT_CONNECTION + b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"):
        _origin().manifest(REGISTRY, REPOSITORY, "1", CREDENTIAL)


class _NobodyIsAsked:
    def ask(self, method: str, url: str, *_: object) -> None:
        _client()._destinations.hop(url, time.monotonic() + 60)
        raise DestinationError(NOT_ASKED, "nobody is")


def _challenge(data: bytes) -> None:
    header = data.decode("latin-1")
    parse_challenge(header)
    Authorizer(cast(Redirects, _NobodyIsAsked())).meet(ACCESS, header, None, time.monotonic() + 60)


def _authorization(data: bytes) -> None:
    credential = from_authorization(data.decode("latin-1"))
    assert from_authorization(credential.header) == credential


def _headers(data: bytes) -> None:
    value = data.decode("latin-1")
    assert 0 <= retry_after(value) <= RETRY_AFTER_SECONDS_MAX
    assert all(number >= -1 for number in content_range({"content-range": value}))
    assert Manifest.of(value, b"{}").media_type.isprintable()


def _manifest(data: bytes) -> None:
    manifest = Manifest.of("", data)
    assert all(digest.startswith("sha256:") and len(digest) == 71 for digest in manifest.lists())
    assert all(size >= 0 for size in manifest.sizes().values())
    assert manifest.media_type.isprintable()
    is_manifest(data)
    is_listing(data)


def _said(data: bytes) -> None:
    assert what_it_said(data, CREDENTIAL.header).isprintable()
    token, seconds = token_of(REGISTRY, data)
    assert token.isprintable()
    assert seconds >= 0


def _peer_answer(data: bytes) -> None:
    """A piece of a hundred bytes, of which the supernode names the digest, or nobody, or whoever sends it."""
    digest = (bytes(32), None, messages.COMING)[data[0] % 3 if data else 0]
    blob = Blob(DIGEST, Layout.of(100), os.memfd_create("blob", os.MFD_CLOEXEC))
    with servers_say(data[1:]):
        PieceFetcher(key_file(), clock=lambda: 0.0).fetch(blob, 0, digest, HERE)


def _supernode_says(data: bytes) -> None:
    """After Welcome, to an agent that waits for a swarm and for a manifest, and that shows tickets afterwards."""
    heard: list[object] = []
    answered: Future[messages.Resolved | messages.Unresolved | messages.Judged] = Future()
    channel = Channel(
        *(HERE, lambda: HELLO, lambda _: None, lambda recall: messages.Recalled(recall.request, None, 0.0, "", b"")),
        describe=lambda wanted, _: heard.append(wanted),
    )
    channel._opening[1] = heard.append
    channel._asked[2] = answered
    bodies = b"".join(len(body).to_bytes(4, "big") + body for body in data.split(BETWEEN_BODIES))
    try:
        channel._converse(said(frame(WELCOME) + bodies))
    finally:
        tickets.issue(KEY, DIGEST, HERE, channel.unix_seconds)
        channel._down()


def _supernode_message(data: bytes) -> None:
    supernode_message(data)


PLATFORMS = b'{"manifests": [{"digest": "sha256:%s", "platform": {"os": "linux", "architecture": "amd64"}}]}' % (b"0" * 64)


def _index_platforms(data: bytes) -> None:
    manifests_for(Manifest.of("", data), ["amd64"])


def _warm_answer(data: bytes) -> None:
    warm_answer(data)


def _agent_handshake(data: bytes) -> None:
    SealedSocket(said(data), client_context()).prove((KEY,))


def answer(body: bytes, status: str = "200 OK", **headers: str) -> bytes:
    lines = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body


HELLO = messages.Hello(messages.VERSION, "n1", "", "10.0.0.1", 65002, 4, [])
WELCOME = messages.Welcome(messages.VERSION, "supernode-0", 30.0, "10.0.0.9", 65002, 1000.0)
SAID_BY_SUPERNODES: tuple[messages.Message, ...] = (
    messages.Heartbeat(2000.0),
    messages.Task(1, 7, 100, 1 << 19, {0: bytes(32)}),
    messages.Peer(3, "10.0.0.2", 65002),
    messages.Grant(7, [messages.Granted(0, bytes(32), 3, 0)]),
    messages.Run(7, 0, 1),
    messages.Describe(7, bytes(32), 100, 1 << 19),
    messages.Private(7),
    messages.Seeding(7, 0),
    messages.Leave(7, True),
    messages.TaskFailed(1, 0, 502, "no", False, 5),
    messages.Resolved(2, MEDIA_TYPE_DEFAULT, b'{"schemaVersion": 2}', False),
    messages.Unresolved(2, 404, "MANIFEST_UNKNOWN", "no", 0),
    messages.Judged(2, True, 3.5),
    messages.Recall(5, "registry.test", "team/app", "1", True),
    messages.Refused("no"),
    WELCOME,
)
SUPERNODE_BODIES = tuple(frame(message)[4:] for message in SAID_BY_SUPERNODES)
MANIFEST = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": MEDIA_TYPE_DEFAULT,
        "config": {"digest": DIGEST, "size": 5},
        "layers": [{"digest": DIGEST, "size": 20, "urls": None}],
        "manifests": [],
        "blobs": None,
    }
).encode()
BEARER = f'Bearer realm="http://{REGISTRY}/token?a=b",service="s",scope="repository:team/app:pull"'
CHALLENGED = answer(b"", "401 Unauthorized", WWW_Authenticate=BEARER)
TOKEN = b'{"token": "abc", "access_token": null, "expires_in": 300}'
ERRORS = b'{"errors": [{"code": "DENIED", "message": "it is not for you", "detail": null}]}'
DATE = "Sun, 06 Nov 2094 08:49:37 GMT"
MANIFESTS = (
    answer(MANIFEST, Content_Type=MEDIA_TYPE_DEFAULT),
    answer(gzip.compress(MANIFEST, mtime=0), Content_Encoding="gzip"),
    NEXT_CONNECTION.join((CHALLENGED, answer(TOKEN), answer(MANIFEST))),
    NEXT_CONNECTION.join((answer(b"", "503 No", Retry_After="1"), answer(MANIFEST))),
    NEXT_CONNECTION.join((answer(b"", "307 There", Location="http://other.test/a?b=c"), answer(MANIFEST))),
    answer(ERRORS, "403 Forbidden"),
    answer(ERRORS, "429 Too Many", Retry_After=DATE),
    b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\n{"a":\r\n2\r\n1}\r\n0\r\nA: b\r\n\r\n',
    b"HTTP/1.1 100 Continue\r\n\r\n" + answer(MANIFEST),
)
BLOBS = (
    b"0" + answer(bytes(20), Docker_Content_Digest=DIGEST),
    b"1" + answer(bytes(10), "206 Partial", Content_Range="bytes 10-19/20"),
    b"1" + answer(gzip.compress(bytes(20), mtime=0), Content_Encoding="gzip"),
    b"0HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + bytes(20) + b"\r\n0\r\n\r\n",
    b"0HTTP/1.0 200 OK\r\n\r\n" + bytes(20),
    b"0" + answer(b"", "416 No", Content_Range="bytes */20"),
    *(b"0" + manifest for manifest in MANIFESTS[2:6]),
)
URLS = (b"https://other.test:443/v2/a?b=c#d", b"http://other.test/%41", b"//u:p@[::1]:80/", b"https://\xe9.test/\xff", b"../x?y")
VALUES = (b"120", DATE.encode(), b"bytes 10-19/20", b"application/json; charset=utf-8", b"Sunday, 06-Nov-94 08:49:37 GMT")

_ASKED = (OriginError, DigestError)
TARGETS = (
    Target("registry-manifest", _manifest_answer, _ASKED, MANIFESTS),
    Target("registry-digest", _digest_answer, _ASKED, MANIFESTS),
    Target(
        "registry-list", _list_answer, _ASKED, (answer(b'{"name": "a", "tags": ["1"]}', Link='</v2/a>; rel="next"'), *MANIFESTS)
    ),
    Target("registry-blob", _blob_answer, _ASKED, BLOBS),
    Target("registry-blob-size", _blob_size_answer, _ASKED, tuple(blob[1:] for blob in BLOBS)),
    Target("registry-redirect", _http_url, _ASKED, URLS),
    Target("location", _location, (DestinationError,), URLS),
    Target("challenge", _challenge, (OriginError,), (BEARER.encode(), b'Basic realm="a", bearer realm=b, scope="c\\"d"')),
    Target("authorization", _authorization, (RequestError,), (CREDENTIAL.header.encode(),)),
    Target("header-values", _headers, (), VALUES),
    Target("manifest", _manifest, (), (MANIFEST,)),
    Target("registry-words", _said, (OriginError,), (TOKEN, ERRORS)),
    Target(
        "peer-answer",
        _peer_answer,
        (SourceError,),
        tuple(b"%d" % kind + answer(bytes(132 if kind == 2 else 100)) for kind in range(3)),
    ),
    Target("supernode-says", _supernode_says, (OSError, DarnerError), (*SUPERNODE_BODIES, BETWEEN_BODIES.join(SUPERNODE_BODIES))),
    Target("supernode-message", _supernode_message, (DarnerError,), SUPERNODE_BODIES),
    Target(
        "warm-answer",
        _warm_answer,
        (DarnerError,),
        (frame(messages.Warmed(1, [messages.Holding(bytes(32), 7)], [bytes(32)]))[4:], frame(messages.Refused("no"))[4:]),
    ),
    Target("index-platforms", _index_platforms, (), (PLATFORMS,)),
    Target(
        "agent-handshake", _agent_handshake, (ProofError, OSError), (b"\x16\x03\x03\x00\x2a\x02\x00\x00\x26\x03\x03" + bytes(40),)
    ),
)
