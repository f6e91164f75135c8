"""The parts of a webhook beyond its listeners and its certificate, as its settings have them.

Here alone settings become gates, controllers and the reasons for not being ready; `webhook.server` only runs them.
"""

from __future__ import annotations

import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from webhook.admission.agentless import no_agent_there
from webhook.admission.agents import AgentView
from webhook.admission.handler import Judge
from webhook.admission.immutable import proven_only
from webhook.admission.policy import Policy
from webhook.admission.readiness import ready_nodes_only
from webhook.admission.rights import only_in
from webhook.breaker.half_open import one_at_a_time, only_with_secret
from webhook.breaker.pauses import leave_alone
from webhook.breaker.refusals import Refusals
from webhook.breaker.shared import SharedBreakers
from webhook.gates import CredentialGate, Gate
from webhook.kube.events import Events
from webhook.kube.lease import Lease
from webhook.kube.worker import Work
from webhook.metrics import LEADING
from webhook.node_runtimes import NodeRuntimes
from webhook.pullsecrets.cache import PullSecretCache
from webhook.pullsecrets.reconciler import PullSecretReconciler
from webhook.pullsecrets.writer import PullSecretWriter
from webhook.revert.controller import RevertController
from webhook.settings import WebhookSettings
from webhook.startup_taint import StartupTaint

if TYPE_CHECKING:
    from agent.swarm.discovery import Discovery
    from agent.values.address import Address
    from webhook.kube.client import Cluster
    from webhook.warm.warmer import Warmer


@dataclass
class Wiring:
    gates: list[Gate] = field(default_factory=list)
    remembering: list[Gate] = field(default_factory=list)
    """Some of them."""
    without_secret: CredentialGate | None = None
    unready: list[Callable[[], str | None]] = field(default_factory=list)
    """Each says in words why it cannot do its work yet, None if it can."""
    working: dict[str, Work] = field(default_factory=dict)
    """Work that has a thread of its own, by its name, until the process ends."""
    pull_secrets: PullSecretCache | None = None
    lease: Lease | None = None
    refusals: Refusals | None = None
    warmer: Warmer | None = None
    discovery: Discovery | None = None

    def judge(self, policy: Policy) -> Judge:
        secrets = self.pull_secrets.secrets_for if self.pull_secrets else None
        judge = Judge(policy, tuple(self.gates), secrets, self.without_secret, remembering=tuple(self.remembering))
        judge = replace(judge, warm=self.warmer.admitted) if self.warmer else judge
        return replace(judge, rewritten=self.refusals.rewritten) if self.refusals else judge

    def close(self) -> None:
        if self.discovery:
            self.discovery.stop()
        if self.pull_secrets:
            self.pull_secrets.close()
        if self.lease:
            self.lease.release()


def wired(settings: WebhookSettings, cluster: Cluster | None) -> Wiring:
    """To be called in the event loop, whose state some of it is."""
    wiring = Wiring()
    identity = f"{socket.gethostname()[:50]}_{uuid.uuid4().hex[:10]}"
    breakers = SharedBreakers(Events(cluster, identity) if cluster else None)
    wiring.gates.append(only_in(settings.only_namespaces))
    # Before those below, because what is left alone needs no agent and no pull secret.
    wiring.gates.append(leave_alone(breakers.now, settings.excluded_owners, time.time))
    if cluster and settings.lease:
        wiring.lease = lease = Lease(cluster, settings.lease, identity, breakers.publish, breakers.told)
        breakers.leading = lease.leading
        LEADING.set_function(lease.leading)
        wiring.working["lease"] = lease.run
        if settings.revert:
            controller = RevertController(
                cluster, Events(cluster, identity), breakers, lease.leading, settings.release, settings.only_namespaces
            )
            wiring.refusals = refusals = Refusals(Events(cluster, identity), controller.view_age_seconds)
            controller.appeared = refusals.appeared
            wiring.gates.append(refusals.gate)
            wiring.remembering.append(refusals.gate)
            wiring.working |= controller.working() | {"refusals": refusals.run}
    wiring.gates.append(no_agent_there(settings.exclude_nodes))
    agents = None
    if cluster and settings.agent_service:
        agents = AgentView(
            cluster,
            settings.agent_service,
            settings.agent_view_age,
            settings.exclude_nodes.text if settings.exclude_nodes else "",
        )
        wiring.gates.append(ready_nodes_only(agents.now, settings.agent_ready_percent))
        wiring.unready.append(agents.unready)
        wiring.working |= agents.working()
        if settings.startup_taint and wiring.lease:
            wiring.working["startup taint"] = StartupTaint(cluster, agents.ready_nodes, wiring.lease.leading).run
        if settings.node_runtimes:
            wiring.working["node runtimes"] = NodeRuntimes(cluster, agents.ready_nodes, agents.refuse).run
    if cluster and settings.lease and settings.revert:
        # Where nothing is put back, no image is different from the others.
        now = agents.now if agents else None
        wiring.gates.append(proven_only(breakers.evidence.proves, now, settings.immutable_images, time.time))
        one_by_one = one_at_a_time(breakers.now, breakers.evidence, time.time)
        wiring.gates.append(one_by_one)
        wiring.remembering.append(one_by_one)
        wiring.without_secret = only_with_secret(breakers.now, time.time)
    if cluster and settings.pull_secrets:
        writer = PullSecretWriter(cluster, settings.release)
        wiring.pull_secrets = PullSecretCache(writer.settle, settings.pull_secret_deadline)
        leading = wiring.lease.leading if wiring.lease else lambda: True
        changed, namespaces = wiring.pull_secrets.changed, settings.only_namespaces
        wiring.working |= PullSecretReconciler(cluster, writer.settle, changed, leading, namespaces).working()
    if settings.warm_on_admission:
        _warm(wiring, settings)
    return wiring


def _warm(wiring: Wiring, settings: WebhookSettings) -> None:
    """Without it, nothing that speaks to supernodes is imported, nor takes memory."""
    from agent.swarm.discovery import Discovery
    from agent.swarm.tickets import SwarmKey
    from webhook.warm.warmer import Warmer

    found: list[tuple[Address, ...]] = [settings.supernodes]

    def use(supernodes: tuple[Address, ...]) -> None:
        """What names none changes nothing."""
        found[0] = supernodes or found[0]

    wiring.warmer = Warmer(lambda: found[0], SwarmKey(settings.swarm_key_file), settings.warm_architectures)
    wiring.working |= wiring.warmer.working()
    if settings.supernode_service:
        wiring.discovery = Discovery(settings.supernode_service, settings.supernodes_file, use)
        wiring.discovery.start()
