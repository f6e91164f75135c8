"""`darner explain pod NAMESPACE/NAME` and `darner explain image NAME`: gathers what is known, and tells it."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from agent.config import load
from agent.values.errors import UsageError
from agent.values.reference import InvalidReference, Reference, from_local, is_local
from cli import release as releases
from cli.doctor.gather import PODS_ASKED_MAX, Gatherer
from cli.doctor.workloads import shown
from cli.errors import ExitCode, NotThere, WrongUsage
from cli.explain.names import NameStory, Rules, name_stories
from cli.explain.sources import PullStory, pulls_of
from cli.labels import labels_of_namespace, unmet
from cli.output import Shade, print_json, print_line, print_table, size, span
from cli.pods import node_of
from cli.release import Installation
from cli.session import Session, asks_the_cluster, object_typed
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION, pull_secrets
from webhook.pullsecrets.dockerconfig import derived_name
from webhook.settings import PROGRAM, WebhookSettings

PULLS_SHOWN_MAX = 40
EVENTS_SHOWN_MAX = 20

explain = typer.Typer(name="explain", help="What became of a pod, or would become of an image, and why.", rich_markup_mode=None)


def pod(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="Of the pod.")],
) -> int:
    """Whether a pod was rewritten or why not, its secrets, where its bytes came from and in how many seconds, its events."""
    wanted = object_typed(name, "no pod", "such as default/web-0")
    access = session.access
    found = access.get(f"/api/v1/namespaces/{wanted.namespace}/pods/{wanted.name}")
    namespace = access.get(f"/api/v1/namespaces/{wanted.namespace}")
    installation = _installation(session)
    stories = list(name_stories(found, namespace, _rules(session, installation)))
    node = node_of(found)
    originals = [story.original for story in stories if story.rewritten]
    pulls, silent = _pulls(session, installation, originals, [node] if node else [])
    events = access.items(f"/api/v1/namespaces/{wanted.namespace}/events", fields=f"involvedObject.name={wanted.name}")
    secrets = _secrets(found)
    if session.json:
        names = [asdict(story) for story in stories]
        document = {"pod": name, "node": node, "images": names, "secrets": secrets, "unasked": silent}
        print_json({**document, "pulls": [asdict(pull) for pull in pulls], "events": list(map(_told, events))})
        return ExitCode.FINE
    print_line(f"pod {name}" + (f" on {node}" if node else ", which is on no node yet"))
    for story in stories:
        _print_story(story)
    print_line("pull secrets: " + (", ".join(secrets) or "none"))
    _print_pulls(pulls, silent)
    _print_events(events)
    return ExitCode.FINE


def image(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="IMAGE", help="As a pod would name it.")],
) -> int:
    """What would become of an image, in the namespace of -n if one is named, and which nodes pulled it from where."""
    try:
        reference = Reference.parse(from_local(name) if is_local(name) else name)
        local = reference.local
    except InvalidReference as error:
        raise WrongUsage(f"{error}") from None
    installation = _installation(session)
    rules = _rules(session, installation)
    admitted, words = _fate(session, installation, rules, str(reference), reference)
    nodes = [] if installation is None else [node_of(item) for item in installation.ready_pods("agent")]
    pulls, silent = _pulls(session, installation, [str(reference)], nodes[:PODS_ASKED_MAX])
    if session.json:
        document = {"image": str(reference), "local": local, "rewritten": admitted, "why": words, "unasked": silent}
        print_json({**document, "pulls": [asdict(pull) for pull in pulls]})
        return ExitCode.FINE
    where = f"in {session.namespace}" if session.namespace else "where a namespace has opted in"
    print_line(f"image {reference}")
    if admitted:
        print_line(("  rewritten ", Shade.GOOD), f"{where}, to {local}")
    else:
        print_line(("  kept ", Shade.WARNING), f"{where}: {shown(words)}")
    if len(nodes) > PODS_ASKED_MAX:
        print_line((f"  {PODS_ASKED_MAX} of {len(nodes)} agents are asked", Shade.FAINT))
    _print_pulls(pulls, silent)
    return ExitCode.FINE


def _fate(
    session: Session, installation: Installation | None, rules: Rules | None, text: str, reference: Reference
) -> tuple[bool, str]:
    """Whether a pod with the image would be rewritten, and why not."""
    if installation is None or rules is None:
        return False, "no webhook of Darner is here"
    if not rules.policy.admits(reference):
        return False, f"{reference.registry}/{reference.repository} is excluded by webhook.images or registries.allow"
    if not session.namespace:
        return True, ""
    namespace = session.access.get(f"/api/v1/namespaces/{session.namespace}")
    labels = labels_of_namespace(namespace)
    for webhook in mappings_at(rules.configuration or {}, "webhooks"):
        if missed := unmet(mapping_at(webhook, "namespaceSelector"), labels):
            return False, f"the namespace has not opted in: its labels do not meet {', '.join(missed)}"
    gatherer = Gatherer(session.access, installation.namespace, installation)
    trial = gatherer.rewrite_trial(session.namespace, text)
    if trial is None:
        return False, "; ".join(gatherer.unread.values())
    if trial.refused:
        return False, f"the pod is refused: {trial.refused}"
    images = [text_at(item, "image") for item in mappings_at(mapping_at(trial.admitted, "spec"), "containers")]
    if any(map(is_local, images)):
        return True, ""
    decision = text_at(mapping_at(mapping_at(trial.admitted, "metadata"), "annotations"), DECISION)
    return False, decision or "the webhook did not answer; darner doctor says why"


def _installation(session: Session) -> Installation | None:
    """Where Darner is; in `explain`, -n says where the pod is or would be."""
    try:
        return releases.find(session.access, "", session.release)
    except NotThere:
        return None


def _rules(session: Session, installation: Installation | None) -> Rules | None:
    """The rules of the release's webhook, as its Deployment has them."""
    deployment = installation.workloads.get("webhook") if installation else None
    if installation is None or deployment is None:
        return None
    spec = mapping_at(mapping_at(mapping_at(deployment, "spec"), "template"), "spec")
    environment = {
        text_at(item, "name"): text_at(item, "value")
        for container in mappings_at(spec, "containers")
        for item in mappings_at(container, "env")
    }
    known = {name: value for name, value in environment.items() if name in _POLICY}
    try:
        policy = load(WebhookSettings, PROGRAM, [], known).policy
    except UsageError:
        return None
    return Rules(Gatherer(session.access, installation.namespace, installation).configuration(), policy)


_POLICY = (
    "DARNER_NAMESPACE",
    "DARNER_EXCLUDED_NAMESPACES",
    "DARNER_INCLUDE_IMAGES",
    "DARNER_EXCLUDE_IMAGES",
    "DARNER_ALLOW_REGISTRIES",
)
"""What a policy is made of; another version's other settings say nothing here."""


def _pulls(
    session: Session, installation: Installation | None, images: Sequence[str], nodes: Sequence[str]
) -> tuple[list[PullStory], list[str]]:
    """The pulls of these images on these nodes, and who could not tell of any."""
    if installation is None or not images or not nodes:
        return [], []
    agents = [item for item in installation.ready_pods("agent") if node_of(item) in nodes]
    probes = Gatherer(session.access, installation.namespace, installation).probes(agents)
    told = {probe.node: probe.state for probe in probes if probe.state is not None and "pulls" in probe.state}
    silent = [
        f"{probe.node}: {probe.trouble or 'this version of the agent does not tell'}"
        for probe in probes
        if probe.node not in told
    ]
    silent += [f"{node}: it has no agent that is ready" for node in nodes if node not in {probe.node for probe in probes}]
    return [pull for node, state in told.items() for pull in pulls_of(node, state or {}, images)], silent


def _secrets(found: Object) -> list[str]:
    """In the pod's order; a copy for the agent says of which it is."""
    names = pull_secrets(found)
    copies = {derived_name(name): name for name in names}
    return [f"{name} (for the agent, from {copies[name]})" if name in copies else name for name in names]


def _told(event: Object) -> dict[str, Any]:
    when = text_at(event, "lastTimestamp") or text_at(event, "eventTime")
    return {"when": when, "reason": text_at(event, "reason"), "message": text_at(event, "message")}


def _print_story(story: NameStory) -> None:
    print_line(f"{story.where}: {story.original}")
    if story.rewritten:
        print_line(("  rewritten ", Shade.GOOD), f"to {story.image}" + (f"; {story.why}" if story.why else ""))
    else:
        print_line(("  kept ", Shade.WARNING), f"because {shown(story.why)}")


def _print_pulls(pulls: Sequence[PullStory], silent: Sequence[str]) -> None:
    for words in silent:
        print_line((f"where bytes came from is not known on {words}", Shade.FAINT))
    if not pulls:
        print_line("no agent that was asked remembers a pull of it")
        return
    columns = ("node", "blob", "size", "seconds", "first byte", "ago", "from")
    rows = [
        (
            pull.node,
            pull.digest[:19],
            size(pull.bytes),
            f"{pull.seconds:.1f}",
            "-" if pull.first_byte_seconds is None else f"{pull.first_byte_seconds:.1f}",
            span(pull.seconds_ago),
            pull.error or pull.share,
        )
        for pull in pulls[:PULLS_SHOWN_MAX]
    ]
    print_table(columns, rows)


def _print_events(events: Sequence[Object]) -> None:
    told = sorted(map(_told, events), key=lambda item: str(item["when"]))[-EVENTS_SHOWN_MAX:]
    if told:
        print_table(("when", "event", "words"), [(item["when"], item["reason"], shown(item["message"])) for item in told])


def _with_pods_namespace(command: Any) -> Any:
    """The command, whose -n says where the pod would be, and not where Darner is."""
    typed = asks_the_cluster(command)
    option = typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where the pod would be.")
    signature = inspect.signature(typed)
    changed = [
        item.replace(annotation=Annotated[str, option]) if item.name == "namespace" else item
        for item in signature.parameters.values()
    ]
    typed.__signature__ = signature.replace(parameters=changed)  # type: ignore[attr-defined]
    return typed


explain.command("pod")(asks_the_cluster(pod))
explain.command("image")(_with_pods_namespace(image))
