"""Checks of what happens to pods: whether API servers reach the webhook, what it does, what others make of its names. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from cli.doctor.facts import Facts, RewriteTrial
from cli.doctor.finding import Finding, fine, problem, some, unknown, warning
from cli.doctor.workloads import component_of, shown
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION, ORIGINAL_IMAGES

NOT_REACHED = "the-control-plane-does-not-reach-the-webhook"
KEPT = "a-pod-keeps-its-names"


def webhook(facts: Facts) -> Iterator[Finding]:
    """Whether an API server asks the webhook, reaches it and takes its answer.

    It is silent otherwise: a webhook that does not answer lets pods pass as they are. So a pod is shown to it by a dry run, and
    what comes back bears its words or does not.
    """
    if not any(component_of(workload) == "webhook" for workload in facts.workloads):
        if facts.installed:
            yield fine("no webhook is installed (webhook.enabled is false); images are asked for by their local names")
        return
    if facts.configuration is None:
        what = "there is no MutatingWebhookConfiguration of this release, so nobody asks the webhook"
        yield problem(what, "install it again: helm upgrade with the values of the release", NOT_REACHED)
        return
    if not any(text_at(mapping_at(item, "clientConfig"), "caBundle") for item in mappings_at(facts.configuration, "webhooks")):
        what = "API servers have no authority to trust the webhook by: caBundle is empty"
        remedy = "the webhook writes it within webhook.certificate.interval (30 s); its log says why it cannot"
        yield problem(what, remedy, NOT_REACHED)
        return
    unanswered = [trial for trial in facts.rewrite_trials if trial.admitted is not None and not _said(trial.admitted)]
    if any(trial.refused_rewritten or _said(trial.admitted) for trial in facts.rewrite_trials):
        yield fine("API servers reach the webhook, and take its answers")
    elif facts.webhook_unreached:
        yield problem(f"API servers do not reach the webhook: {shown(facts.webhook_unreached)}", _reach(facts), NOT_REACHED)
    elif unanswered:
        seconds = max(trial.seconds for trial in unanswered)
        what = f"API servers reach the webhook and do not take its answer (after {seconds:.1f} s): its certificate, or its time"
        remedy = "kubectl logs of the webhook and of the API server say why; webhook.timeoutSeconds gives it more time"
        yield problem(what, remedy, NOT_REACHED)
    elif facts.webhook_unreached is None:
        yield unknown("whether API servers reach the webhook was not tried, for want of rights to", "", NOT_REACHED)
    else:
        yield fine("API servers reach the webhook")


def _reach(facts: Facts) -> str:
    ports = sorted({number for workload in facts.workloads if component_of(workload) == "webhook" for number in _ports(workload)})
    which = " or ".join(map(str, ports)) or "10250"
    return (
        f"let the control plane reach TCP port {which} of the webhook's pods (GKE: a firewall rule; EKS: a security group), "
        "or set webhook.port to one that it may use, or webhook.hostNetwork=true where pods are on an overlay network"
    )


def opted_in(facts: Facts) -> Iterator[Finding]:
    if facts.configuration is None:
        return
    if facts.opted_in:
        yield fine(f"namespaces that have opted in: {some(facts.opted_in)}")
    elif "namespaces" not in facts.unread:
        what = "no namespace has opted in, so no pod is rewritten"
        yield warning(what, "kubectl label namespace NAMESPACE darner.dev/inject=enabled", KEPT)


def rewrites(facts: Facts) -> Iterator[Finding]:
    """What becomes of a pod in each namespace that was tried."""
    for trial in facts.rewrite_trials:
        if trial.refused:
            yield _refused(trial)
        elif trial.admitted is not None and _said(trial.admitted):
            decision = _annotation(trial.admitted, DECISION)
            if decision:
                what = f"in {trial.namespace} a pod with {trial.image} keeps its name now: {shown(decision)}"
                yield warning(what, "darner explain pod NAMESPACE/NAME tells the same of a pod that is there", KEPT)
            else:
                yield fine(f"in {trial.namespace} a pod with {trial.image} would be rewritten")


def _refused(trial: RewriteTrial) -> Finding:
    words = shown(trial.refused)
    if trial.refused_plainly:
        what = f"what becomes of pods in {trial.namespace} cannot be tried: a pod is refused under its own name too: {words}"
        return unknown(what, "darner explain pod NAMESPACE/NAME tells what became of one that is there", KEPT)
    what = (
        f"in {trial.namespace} a rewritten pod with {trial.image} is refused, and would be admitted under its own name: {words}"
    )
    remedy = "write the policy for both names of an image, as docs/policies.md shows; until then these pods do without Darner"
    return problem(what, remedy, "a-policy-refuses-rewritten-pods")


def _said(pod: Object | None) -> bool:
    return pod is not None and bool(_annotation(pod, DECISION) or _annotation(pod, ORIGINAL_IMAGES))


def _annotation(pod: Object, name: str) -> str:
    return text_at(mapping_at(mapping_at(pod, "metadata"), "annotations"), name)


def _ports(workload: Object) -> Iterator[int]:
    spec = mapping_at(mapping_at(mapping_at(workload, "spec"), "template"), "spec")
    for container in mappings_at(spec, "containers"):
        for port in mappings_at(container, "ports"):
            number = port.get("containerPort")
            if text_at(port, "name") == "https" and isinstance(number, int):
                yield number
