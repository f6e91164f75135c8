"""From a question to what is done about it: what the rules say, what the gates let pass, and the pull secrets that it takes.

The only step of an admission that may have to wait for the cluster is here, and comes last: whatever else leaves a pod alone,
nothing is made for it. What cannot be had in time leaves the pod as it is, with the reason on it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from webhook.admission.policy import Policy
from webhook.admission.review import Admission, decide
from webhook.admission.rewrite import Gate, Left, Outcome, Pod, Reason, Rewrite, pull_secrets
from webhook.pullsecrets.dockerconfig import originals_among
from webhook.pullsecrets.writer import NotDerived

PullSecretNames = Callable[[str, Sequence[str], frozenset[str]], Awaitable[tuple[str, ...]]]
"""For a namespace, originals in it and registries: the names of the derived secrets that it takes. Raises NotDerived."""


@dataclass(frozen=True)
class Judge:
    policy: Policy
    gates: Sequence[Gate] = ()
    pull_secret_names: PullSecretNames | None = None
    """None: pull secrets are not looked at."""

    async def outcome(self, admission: Admission) -> Outcome:
        outcome = decide(admission, self.policy, self.gates)
        names = originals_among(pull_secrets(admission.pod))
        if not outcome.rewrites or not names or self.pull_secret_names is None:
            return outcome
        registries = frozenset(item.registry for item in outcome.rewrites)
        try:
            needed = await self.pull_secret_names(admission.namespace, names, registries)
        except NotDerived as failure:
            return self._left_alone(admission, f"its pull secrets cannot be used at the node's agent: {failure}")
        if admission.subresource and not set(needed) <= set(pull_secrets(admission.pod)):
            return self._left_alone(admission, "it has no pull secret for the node's agent, and cannot be given one any more")
        return replace(outcome, pull_secrets=needed)

    def _left_alone(self, admission: Admission, words: str) -> Outcome:
        def closed(_namespace: str, _pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[Left]:
            yield Left("pod", Reason.NO_PULL_SECRET, words)

        return decide(admission, self.policy, (*self.gates, closed))
