"""From a question to what is done about it: what the rules say, what the gates let pass, and the pull secrets that it takes.

The only step of an admission that may have to wait for the cluster is here, and comes last: nothing is made for a pod that
is left alone for another reason. A secret that cannot be had in time leaves the pod as it is, with the reason on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from webhook.admission.policy import Policy
from webhook.admission.review import Admission, decide
from webhook.admission.rewrite import Verdict
from webhook.errors import NotDerived
from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.pods import Pod, pull_secrets

PullSecretNames = Callable[[str, Sequence[str], frozenset[str]], Awaitable[tuple[str, ...]]]
"""For a namespace, a pod's pull secrets and registries: the names of the derived secrets that it takes. Raises NotDerived."""


@dataclass(frozen=True)
class Judge:
    policy: Policy
    gates: Sequence[Gate] = ()
    pull_secret_names: PullSecretNames | None = None
    """None: pull secrets are not looked at."""

    async def verdict(self, admission: Admission) -> Verdict:
        verdict = decide(admission, self.policy, self.gates)
        names = pull_secrets(admission.pod)
        if not verdict.rewrites or not names or self.pull_secret_names is None:
            return verdict
        registries = frozenset(item.registry for item in verdict.rewrites)
        try:
            needed = await self.pull_secret_names(admission.namespace, names, registries)
        except NotDerived as failure:
            return self._left_alone(admission, f"its pull secrets cannot be used at the node's agent: {failure}")
        if admission.subresource and not set(needed) <= set(pull_secrets(admission.pod)):
            return self._left_alone(admission, "it has no pull secret for the node's agent, and cannot be given one any more")
        return replace(verdict, pull_secrets=needed)

    def _left_alone(self, admission: Admission, words: str) -> Verdict:
        def closed(_namespace: str, _pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
            yield LeftAlone("pod", Reason.NO_PULL_SECRET, words)

        return decide(admission, self.policy, (*self.gates, closed))
