"""The agent, put together: what it serves, what it keeps, and in which order it starts and stops."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from prometheus_client import REGISTRY

from agent import metrics
from agent.admin import ControlServer, application, forget_route, state_route
from agent.config import is_loopback
from agent.download.manager import DownloadManager
from agent.gc import GarbageCollector
from agent.http.certificate import Certificate
from agent.http.ratelimit import Pace, upload_slots
from agent.http.server import Listener
from agent.http.unix import UnixSocket
from agent.origin.client import Origin
from agent.origin.credential_provider import CredentialProviders
from agent.origin.destinations import Forbidden
from agent.origin.proxies import Proxies
from agent.origin.shown import Permission, WhenDown
from agent.process import steady
from agent.registry.endpoint import Registry
from agent.registry.manifests import Manifests
from agent.runtimes.certs_d import CertsD
from agent.runtimes.configuration import RuntimeConfiguration, RuntimePlace
from agent.runtimes.registries_conf import RegistriesConf
from agent.settings import AgentSettings
from agent.state import NodeState
from agent.storage.containerd import ContainerdContent
from agent.storage.scrubber import Scrubber
from agent.storage.store import Store
from agent.storage.verified import Verified
from agent.swarm import messages
from agent.swarm.byte_reports import ByteReports
from agent.swarm.channel import Channel
from agent.swarm.describe import Describer
from agent.swarm.discovery import CHANNEL_PORT, Discovery
from agent.swarm.piece_server import PieceServer
from agent.swarm.supernodes import Supernodes
from agent.swarm.tickets import Encryption, SwarmKey
from agent.values.address import Address
from agent.values.errors import UsageError
from agent.values.reference import raw_digest
from agent.web.endpoint import FilesEndpoint

log = logging.getLogger(__name__)

REGISTRY.register(metrics.AGENT)
"""Shown by this process, and by no other that shares its modules."""

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
        swarm_key, self._certificate = SwarmKey(settings.swarm_key_file), Certificate.make()
        encryption = Encryption(settings.encryption)
        root = Path(settings.store)
        content = None
        if settings.containerd_content:
            content = ContainerdContent(Path(settings.containerd_content), Verified(root / "containerd.proofs"))
        quota, free = settings.store_quota, settings.store_free
        self._store = Store(root, quota=quota, free=free, age=settings.store_age, containerd=content)
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
            forbidden=Forbidden.of(
                settings.refused_networks,
                settings.private_registries,
                (
                    settings.registry_listen,
                    settings.piece_listen,
                    settings.http_listen,
                    Address("", CHANNEL_PORT),
                    *settings.supernodes,
                ),
                os.environ,
            ),
        )
        self._manifests = Manifests(
            root,
            self._origin,
            interval=settings.tag_interval,
            stale_if_error=settings.stale_if_error,
            fresh=settings.fresh_tags,
            now=steady(),
            bytes_max=self._store.room_for_manifests,
            when_down=WhenDown(settings.when_origin_down),
        )
        self._describer = Describer(self._store)
        permission = Permission()
        self._swarm = Supernodes(
            settings.supernodes,
            self._hello,
            self._supernode_is_up,
            self._manifests.recall,
            swarm_key,
            self._describer.describe,
            permission.refuse,
        )
        self._byte_reports = ByteReports(lambda: self._swarm.channels)
        self._discovery = None
        if settings.supernode_service:
            self._discovery = Discovery(settings.supernode_service, settings.supernodes_file, self._swarm.use)
            self._swarm.on_lost = self._discovery.look_soon
        metrics.SUPERNODES.set_function(lambda: len(self._swarm.channels))
        self._manifests.shared = self._swarm
        self._downloads = DownloadManager(self._store, self._swarm, self._origin, swarm_key, download, encryption)
        self._store.on_change = self._swarm.tell
        registry = Registry(
            self._store,
            self._downloads,
            self._manifests,
            permission,
            self._swarm,
            self._origin,
            allow=settings.allow_registries,
            providers=providers,
            when_down=WhenDown(settings.when_origin_down),
            lazy=settings.lazy_pulling,
        )
        self._origin.on_shown = registry.shown
        self._registry = registry.listener(settings.registry_listen)
        self._runtimes = RuntimeConfiguration(_places(settings), settings.mirror_of)
        self._pieces = PieceServer(
            self._store,
            swarm_key,
            self._upload,
            self._swarm.clocks,
            settings.piece_address,
            self._certificate,
            encryption,
            settings.node_name,
        ).listener(settings.piece_listen)
        files = FilesEndpoint(self._store, self._downloads, self._origin, settings.files_allow)
        self._files = _listener_of_files(files, settings)
        state = NodeState(settings.node_name, settings.zone, self._store, self._swarm, self._downloads.pulls)
        routes = (forget_route(self._manifests.forget), state_route(state.described))
        self._control = ControlServer(application(lambda: "", *routes), settings.http_listen)
        self._collector = GarbageCollector(self._store, self._manifests)

    def start(self) -> str:
        if self._scrubber:
            self._scrubber.start()
        self._swarm.start()
        if self._discovery:
            self._discovery.start()
        self._swarm.wait_for_one(FIRST_CHANNEL_SECONDS_MAX)
        self._pieces.start()
        self._registry.start()
        if self._files:
            self._files.start()
        self._control.start()
        self._collector.start()
        self._byte_reports.start()
        self._runtimes.start(self._registry.address)  # the last: a start that fails leaves nothing in others' directories
        supernodes = len(self._swarm.channels)
        return (
            f"agent {self._settings.node_name} is ready: registry on {self._registry.address}, pieces on {self._pieces.address}, "
            f"{supernodes} supernode{'' if supernodes == 1 else 's'}"
        )

    def stop(self) -> None:
        """New pulls are refused at once, those under way get some time, and what they left is on disk."""
        self._byte_reports.stop()
        self._collector.stop()
        if self._scrubber:
            self._scrubber.stop()
        self._runtimes.stop()  # before another agent may listen, and write the same
        if self._files:
            self._files.stop()  # `darner get` goes on without this node
        self._registry.stop(DRAIN_SECONDS)
        self._downloads.stop()
        if self._discovery:
            self._discovery.stop()
        self._swarm.stop()
        self._describer.stop()
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
        mark = self._certificate.fingerprint
        return messages.Hello(messages.VERSION, name, zone, where.host, where.port, slots, held, self._token(), mark)

    def _token(self) -> str:
        """As it is now: kubelets renew the file."""
        path = self._settings.node_token_file
        try:
            return Path(path).read_text().strip()[: messages.TOKEN_CHARACTERS_MAX] if path else ""
        except (OSError, UnicodeDecodeError) as error:
            log.warning("--node-token-file %s cannot be read, so supernodes may refuse this node: %s", path, error)
            return ""


def _listener_of_files(files: FilesEndpoint, settings: AgentSettings) -> Listener | None:
    """Without it `darner get` asks servers itself; pulls go on either way, so no pod that holds the socket's place stops them."""
    if not settings.socket:
        return None
    try:
        return files.listener(UnixSocket(Path(settings.socket), settings.socket_mode))
    except UsageError as error:
        log.warning("`darner get` does not find this agent until it is started again: %s", error)
        return None


def _places(settings: AgentSettings) -> list[RuntimePlace]:
    """Where the runtime is told of this agent, as far as the settings name directories of its configuration."""
    plain = {registry.lower() for registry in settings.insecure_registries}
    places: list[RuntimePlace] = []
    if settings.containerd_hosts:
        places.append(CertsD(Path(settings.containerd_hosts), plain))
    if settings.containers_config:
        places.append(RegistriesConf(Path(settings.containers_config), plain))
    return places
