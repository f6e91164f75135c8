"""The webhook's process: two listeners, the keeper of the certificate, and the signal that ends them.

It binds both ports before anything else, so that a port that is taken is told at once, and it owns no decision about pods or
certificates. Requests that are under way when SIGTERM comes are answered.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import secrets
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from agent.values.address import Address
from agent.values.errors import UsageError
from webhook.admission.http import admission_app, health_app
from webhook.certificates.authority import Lifetimes
from webhook.certificates.rotation import Keeper, Publish
from webhook.certificates.stores import DirectoryStore, Files, Store, Unreachable, settle
from webhook.kube.worker import in_thread
from webhook.settings import PROGRAM, WebhookSettings
from webhook.wiring import parts_of

if TYPE_CHECKING:
    from webhook.kube.client import Cluster

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 512
"""Per listener. API servers keep a few connections each and send many requests over one."""
BACKLOG_MAX = 128
"""Connections that wait to be accepted; so many are tried at a time, and without a free descriptor each try is an error."""
COMPLAINT_SECONDS = 10.0
"""Between two lines that say so."""
HEAD_SECONDS_MAX = 10.0
"""For the first byte of a connection to the last one of a request's head. An API server sends it at once."""
IDLE_SECONDS_MAX = 120
DRAIN_SECONDS_MAX = 3
"""For questions under way when the process ends. An API server waits for none longer than that."""
START_SECONDS_MAX = 60.0
SWITCH_SECONDS = 0.0005
"""How long a thread that follows the cluster may keep a question waiting for the interpreter; Python's 5 ms are ten answers."""
RETRY_SECONDS = 2.0
SWARM_KEY_FILE = "key"
SWARM_KEY_BYTES = 32


class _Protocol(H11Protocol):
    """uvicorn's, whose own timer runs between two requests only: a silent connection, or half a head, would be held for ever."""

    _head_end: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._head_end = None
        else:
            self._expect_head()

    def _expect_head(self) -> None:
        if self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self._head_end = self._head_end or self.loop.time() + HEAD_SECONDS_MAX
            self.timeout_keep_alive_task = self.loop.call_at(self._head_end, self.timeout_keep_alive_handler)


class _Listener(uvicorn.Server):
    """An ASGI server on a socket that is bound already. Signals are the process's, which has two of these."""

    def __init__(self, app: Callable[..., Any], sock: socket.socket, context: ssl.SSLContext | None = None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_Protocol,
                ssl_context_factory=(lambda _config, _default: context) if context else None,
                log_config=None,
                access_log=False,
                server_header=False,
                lifespan="off",
                ws="none",
                backlog=BACKLOG_MAX,
                limit_concurrency=CONNECTIONS_MAX,
                timeout_keep_alive=IDLE_SECONDS_MAX,
                timeout_graceful_shutdown=DRAIN_SECONDS_MAX,
            )
        )
        self.sock = sock

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Complaints:
    """What the event loop has to say: that it cannot accept connections is one line and not thousands of tracebacks a second."""

    def __init__(self) -> None:
        self._said = -COMPLAINT_SECONDS

    def __call__(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
            loop.default_exception_handler(context)
        elif loop.time() - self._said >= COMPLAINT_SECONDS:
            self._said = loop.time()
            log.error("no more connections are accepted for the moment: %s", error.strerror)


async def run(settings: WebhookSettings) -> None:
    """Serves until SIGTERM. Raises DarnerError if it cannot begin."""
    sys.setswitchinterval(SWITCH_SECONDS)
    asyncio.get_running_loop().set_exception_handler(_Complaints())
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    admission_socket, health_socket = _bound(settings.listen), _bound(settings.http_listen)
    cluster = await asyncio.to_thread(_cluster) if settings.needs_cluster else None
    store, publish, make_swarm_key = _resources(settings, cluster)
    parts = parts_of(settings, cluster)
    lifetimes = Lifetimes(settings.certificate_life, settings.authority_life, settings.authority_overlap)
    keeper = Keeper(store, settings.certificate_names, lifetimes, publish)

    async def prepare() -> None:
        await asyncio.to_thread(make_swarm_key)
        await keeper.step()

    await _patiently(prepare, lambda: stopped.is_set() or keeper.serving)
    if stopped.is_set():
        return
    ending = threading.Event()
    admission = _Listener(admission_app(parts.judge(settings.policy)), admission_socket, keeper.context)
    reasons = (keeper.unready, *parts.unready)
    health = _Listener(health_app(lambda: next(filter(None, (reason() for reason in reasons)), None)), health_socket)
    threads = [in_thread(name, work, ending) for name, work in parts.working.items()]
    try:
        await _serve((admission, health), [keeper.run(settings.certificate_interval), *threads], stopped)
    finally:
        ending.set()
        parts.close()


async def _serve(listeners: tuple[_Listener, _Listener], background: Sequence[Awaitable[None]], stopped: asyncio.Event) -> None:
    serving = [asyncio.ensure_future(listener.serve(sockets=[listener.sock])) for listener in listeners]
    working, stopping = [asyncio.ensure_future(work) for work in background], asyncio.ensure_future(stopped.wait())
    while not all(listener.started for listener in listeners) and not any(task.done() for task in serving):
        await asyncio.sleep(0.01)
    if all(listener.started for listener in listeners):
        # What is there now stays: the collector need not go through it while somebody waits for an answer.
        gc.freeze()
        names = tuple(Address(*listener.sock.getsockname()[:2]) for listener in listeners)
        sys.stdout.write(f"{PROGRAM} ready: admission at https://{names[0]}/mutate, health and metrics at http://{names[1]}\n")
        sys.stdout.flush()
    # Whichever ends first ends the process: on SIGTERM well, otherwise with the error of the part that failed.
    await asyncio.wait((*serving, *working, stopping), return_when=asyncio.FIRST_COMPLETED)
    for listener in listeners:
        listener.should_exit = True
    await asyncio.gather(*serving)
    stopping.cancel()
    for work in working:
        if work.done():
            work.result()
        work.cancel()


async def _patiently(attempt: Callable[[], Awaitable[None]], done: Callable[[], bool]) -> None:
    """Attempts until it succeeds or is done. What a moment does not mend, or START_SECONDS_MAX have not, is raised."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + START_SECONDS_MAX
    while True:
        try:
            return await attempt()
        except Unreachable as error:
            if done():
                return None
            if loop.time() >= deadline:
                raise
            log.warning("cannot begin yet: %s", error)
        await asyncio.sleep(RETRY_SECONDS)


def _cluster() -> Cluster:
    from webhook.kube.client import Cluster  # its client takes a second to import and needs a cluster

    return Cluster(os.environ)


def _resources(settings: WebhookSettings, cluster: Cluster | None) -> tuple[Store, Publish | None, Callable[[], object]]:
    """Where the certificate is kept, who is told whom to trust, and what makes the swarm's key."""
    if cluster is None:
        return DirectoryStore(settings.certificate_dir), None, lambda: None
    store = (
        cluster.secret(settings.certificate_secret) if settings.certificate_secret else DirectoryStore(settings.certificate_dir)
    )
    swarm = cluster.secret(settings.swarm_secret) if settings.swarm_secret else None
    configuration = settings.webhook_configuration
    publish = (lambda authorities: cluster.trust(configuration, authorities)) if configuration else None
    return store, publish, lambda: settle(swarm, with_swarm_key) if swarm else None


def with_swarm_key(stored: Files | None) -> Files:
    """The Secret with a key in it: the one that is there, or a new one, in hexadecimal, so that no byte of it is odd."""
    files = dict(stored or {})
    if not files.get(SWARM_KEY_FILE):
        files[SWARM_KEY_FILE] = secrets.token_hex(SWARM_KEY_BYTES).encode()
    return files


def _bound(address: Address) -> socket.socket:
    """A socket that is bound to the address. Raises UsageError in one line, such as for a port that is taken."""
    try:
        family, kind, protocol, _, found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(found)
    except OSError as error:
        raise UsageError(f"{PROGRAM}: cannot listen on {address}: {error.strerror or error}") from None
    return bound
