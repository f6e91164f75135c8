"""In which zone a node is, as the label of its Node object says: for clusters whose pods are not told (before Kubernetes 1.35).

The supernode asks, and not each agent: so the right to get nodes, and the token that goes with it, are on few nodes and not on
all, and no node says itself where it is. A node is asked for by its name when its agent comes, by a thread of its own, one after
the other; nothing waits for the answer. Without one the node counts as being where its agent says, or in no zone.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from urllib.parse import quote

from agent.files import Reread
from agent.http.client import ConnectionPool, Place, TimeLimits, TransferError
from agent.values.address import Address
from agent.values.errors import DarnerError, UsageError

log = logging.getLogger(__name__)

LABEL = "topology.kubernetes.io/zone"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelets put a pod's token, which they renew, and the authority of API servers."""
NODES_MAX = 20_000
KEPT_SECONDS = 600.0
"""An older answer is good until there is a new one, which is asked for when the node's agent comes back."""
ASK_SECONDS_MAX = 5.0
RETRY_SECONDS = 5.0
ANSWER_BYTES_MAX = 1 << 20
ZONE_CHARACTERS_MAX = 63
"""Of a label's value."""
METADATA_ONLY = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

GetZone = Callable[[str], str]
"""A node's zone; "" for one that has none, or that is not there. Raises ZoneError."""


class ZoneError(DarnerError):
    """The API server does not say in which zone a node is."""


class NodeZones:
    """What is known, and a thread that asks for the rest."""

    def __init__(self, get: GetZone, clock: Callable[[], float] = time.monotonic) -> None:
        self._get = get
        self._clock = clock
        self.on_zone: Callable[[str, str], None] = lambda *_: None
        """Told, by the thread, of a node that has a zone."""
        self._known: OrderedDict[str, tuple[str, float]] = OrderedDict()
        self._pending: set[str] = set()
        self._wanted: SimpleQueue[str | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._complaint = ""
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._live, name="node zones", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Does not wait for a question that is under way."""
        self._stopping.set()
        self._wanted.put(None)

    def of(self, node: str) -> str:
        """The zone, as far as it is known; "" as long as it is not, and then `on_zone` hears of it."""
        with self._lock:
            zone, asked_at = self._known.get(node, ("", -KEPT_SECONDS))
            if self._clock() - asked_at >= KEPT_SECONDS and node not in self._pending and len(self._pending) < NODES_MAX:
                self._pending.add(node)
                self._wanted.put(node)
        return zone

    def _live(self) -> None:
        while (node := self._wanted.get()) is not None and not self._stopping.is_set():
            try:
                zone = self._get(node)
            except ZoneError as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    log.warning("nodes count as being where their agents say: %s", error)
                self._stopping.wait(RETRY_SECONDS)
                self._wanted.put(node)
                continue
            self._complaint = ""
            with self._lock:
                self._pending.discard(node)
                self._known.pop(node, None)
                self._known[node] = zone, self._clock()
                while len(self._known) > NODES_MAX:
                    self._known.popitem(last=False)
            if zone:
                self.on_zone(node, zone)


class NodeApi:
    """The API server's word on one node at a time, over one connection that is kept."""

    def __init__(self, environment: Mapping[str, str], account: Path = ACCOUNT) -> None:
        """Raises UsageError outside a cluster."""
        try:
            self._where = Address(environment["KUBERNETES_SERVICE_HOST"], int(environment["KUBERNETES_SERVICE_PORT"]))
        except (KeyError, ValueError):
            raise UsageError("--node-zones true: there is no cluster to ask; run it in a pod, or leave it out") from None
        self._token = Reread(lambda _: (account / "token").read_text(encoding="ascii").strip(), account / "token")
        self._tls = Reread(lambda _: ssl.create_default_context(cafile=account / "ca.crt"), account / "ca.crt")
        self._pool = ConnectionPool(idle_max=1)

    def __call__(self, node: str) -> str:
        try:
            status, body = self._ask(f"/api/v1/nodes/{quote(node, safe='')}")
        except (TransferError, OSError, ValueError) as error:
            raise ZoneError(f"the API server {self._where} cannot be asked: {error}") from None
        if status == 404:
            return ""
        if status == 403:
            raise ZoneError("its account may not get nodes; give it that right, or write supernode.nodeZones: never")
        if status != 200:
            raise ZoneError(f"the API server {self._where} answers {status}")
        try:
            zone = json.loads(body)["metadata"].get("labels", {}).get(LABEL, "")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ZoneError(f"the API server {self._where} answers with something that is no Node") from None
        return zone if isinstance(zone, str) and zone.isprintable() and len(zone) <= ZONE_CHARACTERS_MAX else ""

    def close(self) -> None:
        self._pool.close()

    def _ask(self, path: str) -> tuple[int, bytes]:
        headers = {"Host": str(self._where), "Authorization": f"Bearer {self._token()}", "Accept": METADATA_ONLY}
        place = Place((self._where,), self._where.host, tls=self._tls())
        connection, answer = self._pool.ask(place, "GET", path, headers, TimeLimits(ASK_SECONDS_MAX))
        try:
            return answer.status, connection.read_all(ANSWER_BYTES_MAX)
        finally:
            self._pool.give_back(connection)
