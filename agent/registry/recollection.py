"""What this node knows of names that a supernode has lost: its cache is soft, and each node remembers what it was told.

Only what the origin said to whoever has no credential: others' verdicts are nobody's business.
"""

from __future__ import annotations

from agent.registry.manifests import Manifests
from agent.swarm import messages


class Recollection:
    def __init__(self, manifests: Manifests) -> None:
        self._manifests = manifests

    def __call__(self, question: messages.Recall) -> messages.Recalled:
        known = self._manifests.recall(question.registry, question.repository, question.reference)
        if known is None:
            return messages.Recalled(question.request, None, 0.0, "", b"")
        manifest, age = known
        digest = bytes.fromhex(manifest.digest.removeprefix("sha256:"))
        return messages.Recalled(question.request, digest, age, manifest.media_type, manifest.body if question.body else b"")
