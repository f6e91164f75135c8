"""What the supernode counts, beside what the modules it shares with the agent count (agent.metrics)."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

CONNECTED_NODES = Gauge("darner_supernode_connected_nodes", "Agents with an open channel")
TASKS = Gauge("darner_supernode_tasks", "Blobs that are being distributed")
GRANTED_PIECES = Counter("darner_supernode_granted_pieces", "Pieces that were granted to nodes")
FAILED_PIECES = Counter(
    "darner_supernode_failed_pieces", "Granted pieces that did not come, by what the taker says of it", ["verdict"]
)
LEAVES = Counter("darner_supernode_leaves", "Times that a node was given leave to ask the origin itself, or had it renewed")
QUARANTINES = Counter("darner_supernode_quarantines", "Times that a peer was excluded as a source")
QUARANTINED_NODES = Gauge("darner_supernode_quarantined_nodes", "Nodes that are excluded as sources now")
ORIGIN_RECEIVED_BYTES = Counter("darner_supernode_origin_received_bytes", "Bytes of blobs that the origin registries sent here")
RECOVERED_BYTES = Counter("darner_supernode_recovered_bytes", "Bytes of blobs that this supernode took back from its peers")
SEEDS = Counter("darner_supernode_seeds", "Blobs that this supernode set out to get", ["outcome"])
WARM_NAMES = Counter(
    "darner_supernode_warm_names", "Images of admitted pods that a webhook named, by what became of that", ["outcome"]
)
WARM_BLOBS = Counter("darner_supernode_warm_blobs", "Blobs of these images, by what became of getting them early", ["outcome"])
WARMED_BYTES = Counter("darner_supernode_warmed_bytes", "Bytes of blobs that came from registries before a node had asked")
REFUSED_CHANNELS = Counter(
    "darner_supernode_refused_channels", "Channels that were refused or broken off for what was sent over them"
)

for _outcome in ("resolved", "repeated", "loaded", "private", "failed", "limited"):
    WARM_NAMES.labels(_outcome)
for _outcome in ("whole", "wanted", "here", "held", "doubted", "private", "failed", "late", "limited"):
    WARM_BLOBS.labels(_outcome)
