"""The agent, put together: what it serves, what it keeps, and in which order it starts and stops."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from agent.admin import ControlServer, application, forget_route
from agent.config import is_loopback
from agent.download.manager import DownloadManager
from agent.gc import GarbageCollector
from agent.http.ratelimit import Pace, upload_slots
from agent.origin.client import Origin
from agent.origin.credential_provider import CredentialProviders
from agent.origin.proxies import Proxies
from agent.origin.shown import Permission
from agent.registry.endpoint import Registry
from agent.registry.manifests import Manifests
from agent.settings import AgentSettings
from agent.storage.containerd import ContainerdContent
from agent.storage.scrubber import Scrubber
from agent.storage.store import Store
from agent.storage.verified import Verified
from agent.swarm import messages
from agent.swarm.channel import Channel
from agent.swarm.piece_server import PieceServer
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import SwarmKey
from agent.values.errors import UsageError
from agent.values.reference import raw_digest

log = logging.getLogger(__name__)

FIRST_CHANNEL_SECONDS_MAX = 1.0
"""How long the start waits for a supernode: the first pulls would go to the origin without one."""
DRAIN_SECONDS = 10.0
"""How long pulls under way may go on after SIGTERM."""


class Agent:
    def __init__(self, settings: AgentSettings) -> None:
        if not is_loopback(settings.registry_listen):
            raise UsageError(
                f"--registry-listen {settings.registry_listen}: only loopback is spoken to in plain HTTP by runtimes"
            )
        self._settings = settings
        swarm_key = SwarmKey(settings.swarm_key_file)
        root = Path(settings.store)
        limits = {"quota": settings.store_quota, "free": settings.store_free}
        content = None
        if settings.containerd_content:
            content = ContainerdContent(Path(settings.containerd_content), Verified(root / "containerd.proofs"))
        self._store = Store(root, **limits, age=settings.store_age, containerd=content)
        self._scrubber = Scrubber(self._store, content) if content else None
        self._upload, download = Pace.of(settings.upload_rate), Pace.of(settings.download_rate)
        paces = (Pace.of(settings.origin_rate), download)
        proxies = Proxies(os.environ)
        providers = CredentialProviders.of_node(settings.credential_provider_config, settings.credential_provider_bin_dir)
        self._origin = Origin(
            settings.insecure_registries,
            settings.ca_files,
            paces=paces,
            proxies=proxies,
            trusted_realms=settings.trusted_realms,
            mirrors=settings.mirrors,
            registry_tls=settings.registry_tls,
            credentials=providers.credentials if providers else None,
        )
        self._manifests = Manifests(
            root,
            self._origin,
            interval=settings.tag_interval,
            stale_if_error=settings.stale_if_error,
            fresh=settings.fresh_tags,
            bytes_max=self._store.room_for_manifests,
        )
        self._swarm = Supernodes(settings.supernodes, self._hello, self._supernode_is_up, self._manifests.recall, swarm_key)
        self._downloads = DownloadManager(self._store, self._swarm, self._origin, swarm_key, download)
        self._store.on_change = self._swarm.tell
        registry = Registry(
            self._store,
            self._downloads,
            self._manifests,
            Permission(),
            self._swarm,
            self._origin,
            allow=settings.allow_registries,
            providers=providers,
        )
        self._registry = registry.listener(settings.registry_listen)
        self._pieces = PieceServer(self._store, swarm_key, self._upload, self._swarm.clocks, settings.piece_address).listener(
            settings.piece_listen
        )
        self._control = ControlServer(application(lambda: "", forget_route(self._manifests.forget)), settings.http_listen)
        self._collector = GarbageCollector(self._store, self._manifests)

    def start(self) -> str:
        if self._scrubber:
            self._scrubber.start()
        self._swarm.start()
        self._swarm.wait_for_one(FIRST_CHANNEL_SECONDS_MAX)
        self._pieces.start()
        self._registry.start()
        self._control.start()
        self._collector.start()
        supernodes = len(self._settings.supernodes)
        return (
            f"agent {self._settings.node_name} is ready: registry on {self._registry.address}, pieces on {self._pieces.address}, "
            f"{supernodes} supernode{'' if supernodes == 1 else 's'}"
        )

    def stop(self) -> None:
        """New pulls are refused at once, those under way get some time, and what they left is on disk."""
        self._collector.stop()
        if self._scrubber:
            self._scrubber.stop()
        self._registry.stop(DRAIN_SECONDS)
        self._downloads.stop()
        self._swarm.stop()
        self._pieces.stop()
        self._control.stop()
        self._origin.close()
        self._store.close()

    def _supernode_is_up(self, _: Channel) -> None:
        self._downloads.swarm_is_up()

    def _hello(self) -> messages.Hello:
        holdings = [messages.Holding(raw_digest(digest), size) for digest, size in self._store.offered().items()]
        where = self._settings.piece_address or self._pieces.address
        name, zone, slots = self._settings.node_name, self._settings.zone, upload_slots(self._upload)
        held = holdings[-messages.HOLDINGS_MAX :]
        return messages.Hello(messages.VERSION, name, zone, where.host, where.port, slots, held, self._token())

    def _token(self) -> str:
        """As it is now: kubelets renew the file."""
        path = self._settings.node_token_file
        try:
            return Path(path).read_text().strip()[: messages.TOKEN_CHARACTERS_MAX] if path else ""
        except (OSError, UnicodeDecodeError) as error:
            log.warning("--node-token-file %s cannot be read, so supernodes may refuse this node: %s", path, error)
            return ""
