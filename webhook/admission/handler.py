"""From a question to what is done about it: what the rules say, what the gates let pass, and the pull secrets that it takes.

The only step of an admission that may have to wait for the cluster is here, and comes last: nothing is made for a pod that
is left alone for another reason. A secret that cannot be had in time leaves the pod as it is, with the reason on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from webhook.admission.policy import Policy
from webhook.admission.review import Admission, decide
from webhook.admission.rewrite import Verdict, narrowed
from webhook.errors import NotDerived
from webhook.gates import CredentialGate, Gate, LeftAlone, Reason
from webhook.pods import Pod, pull_secrets

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

    async def verdict(self, admission: Admission) -> Verdict:
        verdict = await self._judged(admission)
        if verdict.rewrites:
            self.rewritten(admission.namespace, admission.pod)
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


def _left_alone(admission: Admission, verdict: Verdict, words: str) -> Verdict:
    return narrowed(admission.pod, verdict, (LeftAlone("pod", Reason.NO_PULL_SECRET, words),))
