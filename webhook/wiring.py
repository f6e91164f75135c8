"""What this webhook is made of beyond its listeners and its certificate, as its settings have it.

The one place where settings become gates, controllers and the reasons for not being ready; `webhook.server` only runs them.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from webhook.admission.agents import AgentView
from webhook.admission.handler import Judge
from webhook.admission.policy import Policy
from webhook.admission.readiness import ready_nodes_only
from webhook.admission.rewrite import Gate
from webhook.breaker.breaker import leave_alone
from webhook.breaker.half_open import one_at_a_time, proven_only
from webhook.breaker.shared import Learning
from webhook.kube.events import Events
from webhook.kube.lease import Lease
from webhook.kube.worker import Work
from webhook.metrics import LEADING
from webhook.pullsecrets.cache import PullSecrets
from webhook.pullsecrets.reconciler import InStep
from webhook.pullsecrets.writer import Deriver
from webhook.revert.controller import Unrewriter
from webhook.settings import WebhookSettings

if TYPE_CHECKING:
    from webhook.kube.client import Cluster


@dataclass
class Parts:
    gates: list[Gate] = field(default_factory=list)
    unready: list[Callable[[], str | None]] = field(default_factory=list)
    """Each says in words why it cannot do its work yet, None if it can."""
    working: dict[str, Work] = field(default_factory=dict)
    """What runs in a thread of its own, by its name, until the process ends."""
    pull_secrets: PullSecrets | None = None
    lease: Lease | None = None

    def judge(self, policy: Policy) -> Judge:
        return Judge(policy, tuple(self.gates), self.pull_secrets.names_for if self.pull_secrets else None)

    def close(self) -> None:
        if self.pull_secrets:
            self.pull_secrets.close()
        if self.lease:
            self.lease.release()


def parts_of(settings: WebhookSettings, cluster: Cluster | None) -> Parts:
    """To be called in the event loop, whose state some of the parts are."""
    parts = Parts()
    identity = f"{socket.gethostname()[:50]}_{uuid.uuid4().hex[:10]}"
    learning = Learning(Events(cluster, identity) if cluster else None)
    # First, because what is left alone needs no agent and no pull secret.
    parts.gates.append(leave_alone(learning.now, settings.excluded_owners, time.time))
    if cluster and settings.lease:
        parts.lease = lease = Lease(cluster, settings.lease, identity, learning.publish, learning.told)
        learning.leading = lease.leading
        LEADING.set_function(lease.leading)
        parts.working["lease"] = lease.run
        if settings.revert:
            unrewriter = Unrewriter(cluster, Events(cluster, identity), learning, lease.leading, settings.release)
            parts.working |= unrewriter.working()
    agents = None
    if cluster and settings.agent_service:
        agents = AgentView(cluster, settings.agent_service, settings.agent_view_age)
        parts.gates.append(ready_nodes_only(agents.now, settings.agent_ready_percent))
        parts.unready.append(agents.unready)
        parts.working["agents"] = agents.run
    if cluster and settings.lease and settings.revert:
        # Where nothing is put back, no image is different from the others.
        now = agents.now if agents else None
        parts.gates.append(proven_only(learning.evidence, now, settings.immutable_images, time.time))
        parts.gates.append(one_at_a_time(learning.now, learning.evidence, time.time))
    if cluster and settings.pull_secrets:
        deriver = Deriver(cluster, settings.release)
        parts.pull_secrets = PullSecrets(deriver.settle, settings.pull_secret_deadline)
        leading = parts.lease.leading if parts.lease else lambda: True
        parts.working |= InStep(cluster, deriver.settle, parts.pull_secrets.changed, leading).working()
    return parts
