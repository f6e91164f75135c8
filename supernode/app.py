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
from agent.http.ratelimit import Pace, upload_slots
from agent.http.server import bind
from agent.origin.client import Origin
from agent.origin.proxies import Proxies
from agent.registry.manifests import Manifests
from agent.storage.store import Store
from agent.swarm.piece_client import PieceFetcher
from agent.swarm.piece_server import PieceServer
from agent.swarm.tickets import SwarmKey
from agent.values.errors import DarnerError
from supernode.api import application
from supernode.node_tokens import NodeTokens
from supernode.scheduler.limits import Limits
from supernode.seeder import Seeder
from supernode.settings import SupernodeSettings
from supernode.tracker.handshake import Certified
from supernode.tracker.health import HealthSettings
from supernode.tracker.server import ChannelServer
from supernode.tracker.tracker import Tracker

ASK_SECONDS_MAX = 5.0
STOP_SECONDS_MAX = 5.0
BACKLOG = 4096


class Supernode:
    def __init__(self, settings: SupernodeSettings, clock: Callable[[], float] = time.time) -> None:
        """`clock` tells Unix time, on which the tickets of all its swarms count."""
        self._clock = clock
        self._settings = settings
        swarm_key = SwarmKey(settings.swarm_key_file)
        self._tokens = NodeTokens(settings.node_token_keys, settings.node_token_account) if settings.node_token_keys else None
        self._identity = Certified(swarm_key) if settings.swarm_key_file else None
        root = Path(settings.store)
        self._store = Store(root, quota=settings.store_quota, free=settings.store_free, age=settings.store_age)
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
        )
        self._manifests = Manifests(
            root,
            self._origin,
            interval=settings.tag_interval,
            stale_if_error=settings.stale_if_error,
            fresh=settings.fresh_tags,
            bytes_max=self._store.room_for_manifests,
        )
        self._fetcher = PieceFetcher(swarm_key, clock=clock)
        self._pieces = PieceServer(self._store, swarm_key, self._upload, lambda: (clock(),), settings.piece_address).listener(
            settings.piece_listen
        )
        self._channel = bind(settings.channel_listen, "channel")
        app = application(self._not_ready, self._ask, self._manifests.forget)
        self._control = ControlServer(app, settings.http_listen)
        self._seeder = Seeder(self._store, self._origin, self._fetcher)
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
        self._collector.start()
        host, port = self._channel.getsockname()[:2]
        return f"supernode {self._settings.node_name} is ready: channel on {host}:{port}, pieces on {self._pieces.address}"

    def stop(self) -> None:
        """Agents are left alone at once, and what has arrived of a blob is on disk."""
        self._collector.stop()
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
        where = settings.piece_address or self._pieces.address
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(AcceptComplaints())
        witnesses_min = 1 if settings.tag_recall == "any" else 2
        tracker = self._tracker = Tracker(
            settings.node_name, where, self._seeder, self._manifests, health, limits, random.Random(), self._clock, witnesses_min
        )
        channels = ChannelServer(tracker, self._identity, self._tokens)
        server = await loop.create_server(channels.connected, sock=self._channel, backlog=BACKLOG)
        self._loop, self._ending = loop, asyncio.Event()
        self._begun.set()
        await self._ending.wait()
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
