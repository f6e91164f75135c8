"""The supernode, put together: a node's store, origin client and piece server, with the tracker on top."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from agent.admin import AcceptComplaints, ControlServer
from agent.gc import GarbageCollector
from agent.http.certificate import Certificate
from agent.http.ratelimit import Pace, upload_slots
from agent.http.server import bind
from agent.origin.client import Origin
from agent.origin.destinations import Forbidden
from agent.origin.proxies import Proxies
from agent.process import steady
from agent.registry.manifests import Manifests
from agent.storage.store import Store
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import Encryption, SwarmKey
from agent.values.errors import DarnerError
from supernode.api import application
from supernode.loaded.images import LoadedImages
from supernode.loaded.receiver import LoadReceiver
from supernode.loop import call_in
from supernode.node_tokens import NodeTokens
from supernode.registry_credentials import RegistryCredentials
from supernode.scheduler.limits import Limits
from supernode.seeder import Seeder
from supernode.settings import SupernodeSettings
from supernode.tracker.addresses import Addresses
from supernode.tracker.handshake import Certified
from supernode.tracker.health import HealthSettings
from supernode.tracker.server import ChannelServer
from supernode.tracker.tracker import Tracker
from supernode.zones import NodeApi, NodeZones

ASK_SECONDS_MAX = 5.0
STOP_SECONDS_MAX = 5.0
BACKLOG = 4096


class Supernode:
    def __init__(self, settings: SupernodeSettings, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells Unix time, from which that of all tickets of its swarms begins."""
        self._clock = clock = steady(clock)
        self._settings = settings
        self._swarm_key = swarm_key = SwarmKey(settings.swarm_key_file)
        self._tokens = None
        if settings.node_token_keys:
            # As the clock is now, if that was wrong at the start, or as it was then, if somebody has set it wrong meanwhile.
            self._tokens = NodeTokens(settings.node_token_keys, settings.node_token_account, (time.time, self._clock))
        self._zones = NodeZones(NodeApi(os.environ)) if settings.node_zones else None
        self._certificate, encryption = Certificate.make(), Encryption(settings.encryption)
        self._identity = Certified(swarm_key, self._certificate) if settings.swarm_key_file else None
        root = Path(settings.store)
        self._store = Store(
            root, quota=settings.store_quota, free=settings.store_free, age=settings.store_age, limit=settings.store_limit
        )
        self._loaded = LoadedImages(root, self._store)
        self._receiver = LoadReceiver(root, self._store, self._loaded)
        self._upload = Pace.of(settings.upload_rate)
        paces = (Pace.of(settings.origin_rate),)
        proxies = Proxies(os.environ)
        self._origin = Origin(
            settings.insecure_registries,
            settings.ca_files,
            paces=paces,
            proxies=proxies,
            trusted_realms=settings.trusted_realms,
            mirrors=settings.mirrors,
            registry_tls=settings.registry_tls,
            forbidden=Forbidden.of(
                settings.refused_networks,
                settings.private_registries,
                (settings.piece_listen, settings.http_listen, settings.channel_listen),
                os.environ,
            ),
        )
        self._manifests = Manifests(
            root,
            self._origin,
            interval=settings.tag_interval,
            stale_if_error=settings.stale_if_error,
            fresh=settings.fresh_tags,
            now=self._clock,
            bytes_max=self._store.room_for_manifests,
        )
        self._fetcher = PieceFetcher(swarm_key, clock=clock, encryption=encryption)
        self._pieces = PieceServer(
            self._store, swarm_key, self._upload, lambda: (clock(),), settings.piece_address, self._certificate, encryption
        ).listener(settings.piece_listen)
        self._channel = bind(settings.channel_listen, "channel")
        app = application(self._not_ready, self._ask, self._forget)
        self._control = ControlServer(app, settings.http_listen)
        credentials = RegistryCredentials(settings.registry_credentials)
        self._seeder = Seeder(self._store, self._origin, self._fetcher, credentials, files=settings.files_allow)
        self._tracker: Tracker | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tracking = threading.Thread(target=self._track, name="tracker", daemon=True)
        self._begun = threading.Event()
        self._ending: asyncio.Event | None = None
        self._collector = GarbageCollector(self._store, self._manifests)

    def start(self) -> str:
        self._pieces.start()
        self._tracking.start()
        self._begun.wait()
        if not self._ending:
            raise DarnerError("the tracker did not start; its thread says why")
        self._control.start()
        self._receiver.start()
        self._collector.start()
        host, port = self._channel.getsockname()[:2]
        return f"supernode {self._settings.node_name} is ready: channel on {host}:{port}, pieces on {self._pieces.address}"

    def stop(self) -> None:
        """Agents are left alone at once, and what has arrived of a blob is on disk."""
        self._collector.stop()
        self._receiver.stop()
        if self._loop and self._ending:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._tracking.join(STOP_SECONDS_MAX)
        self._origin.close()
        self._fetcher.close()
        if self._tracker:
            self._tracker.join()
        self._pieces.stop()
        self._control.stop()
        self._store.close()

    def _not_ready(self) -> str:
        if self._tracker is None or not self._tracking.is_alive():
            return "the tracker does not run"
        return self._tracker.not_ready()

    def _forget(self, registry: str, repository: str, reference: str) -> int:
        """What a tag means, to anybody. The number of answers that are dropped."""
        found = self._ask(lambda tracker: {"dropped": tracker.verdicts.forget(registry, repository, reference)})
        return self._manifests.forget(registry, repository, reference) + int(found["dropped"])

    def _track(self) -> None:
        """The tracker's thread: its loop owns all that is scheduled."""
        try:
            asyncio.run(self._serve_channels())
        finally:
            self._begun.set()

    async def _serve_channels(self) -> None:
        settings = self._settings
        health = HealthSettings(
            failures_max=settings.quarantine_failures,
            quarantine_seconds=settings.quarantine_time,
            lease_seconds=settings.peer_lease,
        )
        limits = Limits(upload_slots_max=settings.upload_slots).for_seed(upload_slots(self._upload))
        limits = limits.for_registries(settings.registry_connections)
        where = settings.piece_address or self._pieces.address
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptComplaints())
        witnesses_min = 1 if settings.tag_recall == "any" else 2
        tracker = self._tracker = Tracker(
            settings.node_name,
            where,
            self._seeder,
            self._manifests,
            health,
            limits,
            random.Random(),
            self._clock,
            witnesses_min,
            self._certificate.fingerprint,
            self._zones.of if self._zones else lambda _: "",
            self._loaded,
        )
        if self._zones:
            self._zones.on_zone = lambda node, zone: call_in(loop, tracker.zone_known, node, zone)
            self._zones.start()
        addresses = Addresses(self._swarm_key, tracker.knows, tracker.locate)
        channels = ChannelServer(tracker, self._identity, self._tokens, addresses)
        server = await loop.create_server(channels.connected, sock=self._channel, backlog=BACKLOG)
        verdicts = tracker.verdicts
        self._origin.on_shown = lambda *blob: verdicts.shown(*blob[:3]) if blob[3] is None else None
        self._loop, self._ending = loop, asyncio.Event()
        self._begun.set()
        await self._ending.wait()
        if self._zones:
            self._zones.stop()
        server.close()
        channels.stop()
        tracker.stop()
        await asyncio.sleep(0)  # connections end in the loop

    def _ask(self, question: Callable[[Tracker], dict[str, Any]]) -> dict[str, Any]:
        """Put a question to the tracker from another thread. Raises DarnerError when it does not answer."""
        answer: Future[dict[str, Any]] = Future()

        def put() -> None:
            try:
                assert self._tracker is not None  # noqa: S101 (its loop runs, so it is there)
                answer.set_result(question(self._tracker))
            except Exception as error:
                answer.set_exception(error)

        try:
            assert self._loop is not None  # noqa: S101 (the control surface starts after the loop)
            self._loop.call_soon_threadsafe(put)
            return answer.result(ASK_SECONDS_MAX)
        except (RuntimeError, TimeoutError):
            raise DarnerError("the tracker does not answer") from None
