"""The webhook's process: two listeners, the rotation of the certificate, and the signal that ends them.

It binds both ports before anything else, so that a port that is taken is told at once, and it owns no decision about pods or
certificates. Requests that are under way when SIGTERM comes are answered.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent.admin import Surface, SurfaceLimits, application
from agent.http.server import bind
from agent.values.errors import DarnerError
from webhook.admission.http import admission_app
from webhook.certificates.authority import Lifetimes
from webhook.certificates.clients import Clients
from webhook.certificates.rotation import Publish, Rotation
from webhook.certificates.stores import DirectoryStore, Files, KeyStore, SecretStore, settle
from webhook.certificates.trust import trust
from webhook.errors import Unreachable
from webhook.kube.api import Api
from webhook.kube.worker import in_thread
from webhook.settings import PROGRAM, WebhookSettings
from webhook.wiring import wired

if TYPE_CHECKING:
    from webhook.kube.client import Cluster

log = logging.getLogger(__name__)

ADMISSION_LIMITS = SurfaceLimits(
    connections_max=512,
    # API servers may all come from one address, that of a gateway, and each question has a connection of its own in HTTP/1.1. An
    # API server has 200 changing requests under way (--max-mutating-requests-inflight): twice as many fit here, and they
    # leave room for other addresses. A connection over TLS takes some 0.3 MiB, of the 256 MiB that the chart gives the process.
    connections_per_address_max=400,
    head_seconds_max=10.0,
    idle_seconds_max=120,
    connection_seconds_max=None,
    drain_seconds_max=3,
)
"""API servers send a head at once, keep their connections, and wait for no answer longer than 3 s."""
START_SECONDS_MAX = 60.0
SWITCH_SECONDS = 0.0005
"""How long a thread that follows the cluster may keep a question waiting for the interpreter; Python's 5 ms are ten answers."""
RETRY_SECONDS = 2.0
SWARM_KEY_FILE = "key"
NODE_KEYS_FILE = "node-keys"
NODE_KEYS_SECONDS = 300.0
SWARM_KEY_BYTES = 32


async def run(settings: WebhookSettings) -> None:
    """Serves until SIGTERM. Raises DarnerError if it cannot begin."""
    sys.setswitchinterval(SWITCH_SECONDS)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    admission_socket, health_socket = bind(settings.listen, "admission port"), bind(settings.http_listen, "health port")
    cluster = await asyncio.to_thread(_cluster) if settings.needs_cluster else None
    store, publish, make_swarm_key = _resources(settings, cluster)
    wiring = wired(settings, cluster)
    lifetimes = Lifetimes(settings.certificate_life, settings.authority_life, settings.authority_overlap)
    clients = Clients(settings.client_ca_file, settings.client_names) if settings.client_ca_file else None
    rotation = Rotation(store, settings.certificate_names, lifetimes, publish, clients=clients)

    async def prepare() -> None:
        await asyncio.to_thread(make_swarm_key)
        await rotation.step()

    await _patiently(prepare, lambda: stopped.is_set() or rotation.serving)
    if stopped.is_set():
        return
    ending = threading.Event()
    admission = Surface(
        admission_app(wiring.judge(settings.policy)),
        admission_socket,
        ADMISSION_LIMITS,
        rotation.context,
        clients.may_ask if clients else None,
    )
    reasons = (rotation.unready, *wiring.unready)
    health = Surface(application(lambda: next(filter(None, (reason() for reason in reasons)), None)), health_socket)
    threads = [in_thread(name, work, ending) for name, work in wiring.working.items()]
    try:
        background = [rotation.run(settings.certificate_interval), _again_and_again(make_swarm_key), *threads]
        await _serve((admission, health), background, stopped)
    finally:
        ending.set()
        wiring.close()


async def _again_and_again(make_swarm_key: Callable[[], object]) -> None:
    """The cluster's public keys change now and then, long before tokens are signed with the new ones alone."""
    while True:
        await asyncio.sleep(NODE_KEYS_SECONDS)
        try:
            await asyncio.to_thread(make_swarm_key)
        except DarnerError as error:
            log.warning("the swarm's Secret could not be kept, and is looked at again: %s", error)


async def _serve(surfaces: tuple[Surface, Surface], background: Sequence[Awaitable[None]], stopped: asyncio.Event) -> None:
    serving = [asyncio.ensure_future(surface.serve()) for surface in surfaces]
    working, stopping = [asyncio.ensure_future(work) for work in background], asyncio.ensure_future(stopped.wait())
    while not all(surface.started for surface in surfaces) and not any(task.done() for task in serving):
        await asyncio.sleep(0.01)
    if all(surface.started for surface in surfaces):
        # What is there now stays: the collector need not go through it while somebody waits for an answer.
        gc.freeze()
        admission, health = (surface.address for surface in surfaces)
        sys.stdout.write(f"{PROGRAM} ready: admission at https://{admission}/mutate, health and metrics at http://{health}\n")
        sys.stdout.flush()
    # Whichever ends first ends the process: on SIGTERM well, otherwise with the error of the part that failed.
    await asyncio.wait((*serving, *working, stopping), return_when=asyncio.FIRST_COMPLETED)
    for surface in surfaces:
        surface.should_exit = True
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


def _resources(settings: WebhookSettings, cluster: Cluster | None) -> tuple[KeyStore, Publish | None, Callable[[], object]]:
    """Where the certificate is kept, who is told whom to trust, and what makes the swarm's key."""
    if cluster is None:
        return DirectoryStore(settings.certificate_dir), None, lambda: None
    secret, directory = settings.certificate_secret, settings.certificate_dir
    store = SecretStore(cluster, secret) if secret else DirectoryStore(directory)
    swarm = SecretStore(cluster, settings.swarm_secret) if settings.swarm_secret else None
    publish = partial(trust, cluster, settings.webhook_configuration) if settings.webhook_configuration else None
    return (
        store,
        publish,
        lambda: settle(swarm, lambda stored: with_node_keys(with_swarm_key(stored), cluster)) if swarm else None,
    )


def with_node_keys(files: Files, api: Api) -> Files:
    """The Secret with the cluster's public keys (JWKS), by which supernodes check which node an agent is."""
    answered = api.ask("GET", "/openid/v1/jwks", accept="application/jwk-set+json")
    keys = json.dumps(answered.document, sort_keys=True).encode()
    if answered.status != 200:  # the key must be there all the same, or no agent and no supernode would start
        keys = files.get(NODE_KEYS_FILE, b'{"keys": []}')
        log.error("the API server answered %d about its public keys: supernodes know those of before, or none", answered.status)
    return {**files, NODE_KEYS_FILE: keys}


def with_swarm_key(stored: Files | None) -> Files:
    """The Secret with a key in it: the one that is there, or a new one, in hexadecimal, so that no byte of it is odd."""
    files = dict(stored or {})
    if not files.get(SWARM_KEY_FILE):
        files[SWARM_KEY_FILE] = secrets.token_hex(SWARM_KEY_BYTES).encode()
    return files
