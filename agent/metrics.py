"""What the agent counts. Labels have few values, all named here: never a repository, a digest or a peer."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

RECEIVED_BYTES = Counter(
    "darner_received_bytes", "Bytes of blobs that this node's pulls were fed with, by where they came from", ["source"]
)
UPLOADED_BYTES = Counter("darner_uploaded_bytes", "Bytes of pieces sent to other nodes")
REGISTRY_ANSWERS = Counter("darner_registry_answers", "Answers of the registry endpoint", ["what", "status"])
ORIGIN_REQUESTS = Counter("darner_origin_requests", "Requests to origin registries", ["what", "outcome"])
PIECE_FAILURES = Counter("darner_piece_failures", "Pieces that a source did not deliver", ["verdict"])
CREDENTIAL_PROVIDER_RUNS = Counter("darner_credential_provider_runs", "Runs of the node's credential providers", ["outcome"])
FALLBACKS = Counter("darner_fallbacks", "Downloads that went on at the origin because the swarm could not go on")
SWARM_TROUBLES = Counter(
    "darner_swarm_troubles",
    "Downloads whose node found its swarm of no help, by why: failing, silent, slow at that registry, or its turn did not come",
    ["why"],
)
DOWNLOADS = Gauge("darner_downloads", "Blobs that are arriving now")
STALE_ANSWERS = Counter("darner_stale_answers", "Manifests served while their origin could not be asked")
SUPERNODES_CONNECTED = Gauge("darner_supernodes_connected", "Supernodes that this agent has a channel to")
STORE_BYTES = Gauge("darner_store_bytes", "Bytes of blobs in the store, those that are arriving included")
CONTENT_BYTES = Gauge("darner_containerd_bytes", "Bytes of blobs in containerd's content store that this node offers to others")

for why in ("failing", "silent", "turn", "slow"):
    SWARM_TROUBLES.labels(why)
for source in ("store", "peer", "supernode", "origin"):
    RECEIVED_BYTES.labels(source)
