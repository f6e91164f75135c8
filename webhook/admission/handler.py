"""From a question to what is done about it: what the rules say, what the gates let pass, and the pull secrets that it takes.

The only step of an admission that may have to wait for the cluster is here, and comes last: nothing is made for a pod that
is left alone for another reason. A secret that cannot be had in time leaves the pod as it is, with the reason on it. A dry run
that asks what would become of its pod is told by the rules and by the gates that remember nobody, and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from webhook.admission.policy import Policy
from webhook.admission.review import Admission, decide
from webhook.admission.rewrite import Verdict, narrowed
from webhook.errors import NotDerived
from webhook.gates import CredentialGate, Gate, LeftAlone, Reason, Rewrite
from webhook.pods import DECISION, Pod, pull_secrets

PullSecrets = Callable[[str, Sequence[str], frozenset[str]], Awaitable[Mapping[str, frozenset[str]]]]
"""For a namespace, a pod's pull secrets and registries: the names of the derived secrets that it takes, each with the registries
that it has a credential for. Raises NotDerived."""


@dataclass(frozen=True)
class Judge:
    policy: Policy
    gates: Sequence[Gate] = ()
    pull_secrets: PullSecrets | None = None
    """None: pull secrets are not looked at."""
    without_secret: CredentialGate | None = None
    rewritten: Callable[[str, Pod], None] = lambda _namespace, _pod: None
    """Told of every pod that is admitted with images rewritten."""
    remembering: Sequence[Gate] = ()
    """Those of the gates that note whom they let through: a dry run goes by without them."""
    warm: Callable[[Pod, Sequence[Rewrite]], None] = lambda _pod, _rewrites: None
    """Told of the images of these pods, that somebody may fetch them early. Never waits and never raises."""

    async def verdict(self, admission: Admission) -> Verdict:
        if admission.dry_run:
            return _shown(decide(admission, self.policy, [gate for gate in self.gates if gate not in self.remembering]))
        verdict = await self._judged(admission)
        if verdict.rewrites:
            self.rewritten(admission.namespace, admission.pod)
            self.warm(admission.pod, verdict.rewrites)
        return verdict

    async def _judged(self, admission: Admission) -> Verdict:
        verdict = decide(admission, self.policy, self.gates)
        names = pull_secrets(admission.pod)
        needed: Mapping[str, frozenset[str]] = {}
        if verdict.rewrites and names and self.pull_secrets:
            registries = frozenset(item.registry for item in verdict.rewrites)
            try:
                needed = await self.pull_secrets(admission.namespace, names, registries)
            except NotDerived as failure:
                return _left_alone(admission, verdict, f"its pull secrets cannot be used at the node's agent: {failure}")
            if admission.subresource and not set(needed) <= set(names):
                words = "it has no pull secret for the node's agent, and cannot be given one any more"
                return _left_alone(admission, verdict, words)
            verdict = replace(verdict, pull_secrets=tuple(needed))
        if verdict.rewrites and self.without_secret:
            refused = tuple(self.without_secret(verdict.rewrites, frozenset().union(*needed.values())))
            verdict = narrowed(admission.pod, verdict, refused) if refused else verdict
        return verdict


def _shown(verdict: Verdict) -> Verdict:
    """Whoever asked by a dry run is told in any case, also where a pod would not even get an annotation."""
    unasked = any(left.reason is Reason.DRY_RUN for left in verdict.left)
    return verdict if unasked or verdict.annotations else replace(verdict, annotations={DECISION: verdict.decision or None})


def _left_alone(admission: Admission, verdict: Verdict, words: str) -> Verdict:
    return narrowed(admission.pod, verdict, (LeftAlone("pod", Reason.NO_PULL_SECRET, words),))
