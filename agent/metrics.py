"""What the agent counts, and what every node counts: a supernode too has a store, a piece server and an origin client.

Names say which component counts: `darner_agent_`, `darner_supernode_`, `darner_webhook_`. What agents and supernodes both do has
no component in its name, as `process_cpu_seconds_total` has none: the scrape says whose it is (docs/metrics.md). A supernode
imports this module too, so what is an agent's alone is in a registry that agents alone show (`agent.app`).
Labels have few values, all named in the code: never a repository, a digest or a peer.
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Of every node: an agent or a supernode.

STORE_BYTES = Gauge("darner_store_bytes", "Bytes of blobs in the store, those that are arriving included")
STORE_QUOTA_BYTES = Gauge("darner_store_quota_bytes", "Bytes that the store may hold")
STORE_FREE_BYTES = Gauge("darner_store_free_bytes", "Bytes that are free on the store's filesystem")
STORE_EVICTIONS = Counter(
    "darner_store_evictions",
    "Blobs that were removed from the store: unused for long, for want of quota or of disk, damaged, or held by containerd too",
    ["reason"],
)
STORE_REFUSALS = Counter(
    "darner_store_refusals", "Blobs that were refused, or given up while they arrived, because the disk was full"
)
UPLOADED_BYTES = Counter("darner_uploaded_bytes", "Bytes of pieces sent to other nodes")
ORIGIN_REQUESTS = Counter("darner_origin_requests", "Requests to origin registries", ["what", "outcome"])
STALE_ANSWERS = Counter("darner_stale_answers", "Manifests served while their origin could not be asked")

# Of agents alone.

AGENT = CollectorRegistry()

RECEIVED_BYTES = Counter(
    "darner_agent_received_bytes",
    "Bytes of blobs that this node's pulls were fed with, by where they came from",
    ["source"],
    registry=AGENT,
)
PULL_SECONDS = Histogram(
    "darner_agent_pull_duration_seconds",
    "Of a blob, from the first question for it to its last byte, or to its failure",
    ["outcome"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150, 600),
    registry=AGENT,
)
FIRST_BYTE_SECONDS = Histogram(
    "darner_agent_pull_first_byte_seconds",
    "Of a blob, from the first question for it until a client was sent its first bytes",
    buckets=(0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25),
    registry=AGENT,
)
REGISTRY_ANSWERS = Counter(
    "darner_agent_registry_answers", "Answers of the registry endpoint", ["what", "status"], registry=AGENT
)
PIECE_FAILURES = Counter(
    "darner_agent_piece_failures", "Pieces that a source did not deliver, or delivered wrongly", ["verdict"], registry=AGENT
)
CREDENTIAL_PROVIDER_RUNS = Counter(
    "darner_agent_credential_provider_runs", "Runs of the node's credential providers", ["outcome"], registry=AGENT
)
FALLBACKS = Counter(
    "darner_agent_fallbacks", "Downloads that went on at the origin because the swarm could not go on", registry=AGENT
)
SWARM_TROUBLES = Counter(
    "darner_agent_swarm_troubles",
    "Downloads whose node found its swarm of no help, by why: failing, silent, slow at that registry, or its turn did not come",
    ["why"],
    registry=AGENT,
)
DOWNLOADS = Gauge("darner_agent_downloads", "Blobs that are arriving now", registry=AGENT)
SUPERNODES_CONNECTED = Gauge("darner_agent_supernodes_connected", "Supernodes that this agent has a channel to", registry=AGENT)
SUPERNODES = Gauge("darner_agent_supernodes", "Supernodes that this agent knows of", registry=AGENT)
CONTENT_BYTES = Gauge(
    "darner_agent_containerd_bytes",
    "Bytes of blobs in containerd's content store that this node offers to others",
    registry=AGENT,
)

_OWN_STATUSES = frozenset({400, 401, 403, 404, 405, 406, 408, 416, 421, 429, 500, 502, 503, 504})


def status_label(status: int) -> str:
    """A registry chooses the statuses of its refusals, and a pod's author the registry: those that nobody uses count together."""
    return str(status) if status in _OWN_STATUSES else f"{status // 100}xx"


def received_bytes(source: str) -> int:
    """What is counted of this source by now."""
    samples = [sample for metric in RECEIVED_BYTES.labels(source).collect() for sample in metric.samples]
    return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))


for reason in ("age", "quota", "disk", "damaged", "containerd"):
    STORE_EVICTIONS.labels(reason)
for outcome in ("whole", "failed"):
    PULL_SECONDS.labels(outcome)
for verdict in ("unreachable", "stalled", "corrupt", "missing", "refused"):
    PIECE_FAILURES.labels(verdict)
for why in ("failing", "silent", "turn", "slow"):
    SWARM_TROUBLES.labels(why)
for source in ("store", "containerd", "peer", "supernode", "origin"):
    RECEIVED_BYTES.labels(source)
