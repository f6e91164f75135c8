"""`darner warm` and `darner cool`: what is typed, and what is told of it."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from cli.errors import ExitCode, NotThere, WrongUsage
from cli.output import Shade, console, print_json, print_line, printable, span
from cli.session import ClusterSession, object_typed, seconds
from cli.warm.nodes import chosen, demands, tolerant
from cli.warm.progress import LEFT, Outcome, PullState
from cli.warm.wanted import Batch, named, of_templates, template_of, workload_lists, workload_path
from cli.warm.warming import NodeBatch, Warming, forget

PARALLEL_DEFAULT = 100
NODES_NAMED_MAX = 3
"""In the line that tells who is still pulling."""

Namespace = Annotated[
    str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where the pods will be (default: the context's).")
]


def warm(
    session: ClusterSession,
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE...", help="As a pod names them.")] = None,
    workload: Annotated[
        str, typer.Option(metavar="KIND/NAME", help="All images of its pods, with its service account: deploy/NAME.")
    ] = "",
    namespace: Namespace = "",
    nodes: Annotated[str, typer.Option(metavar="SELECTOR", help="Only nodes with these labels, tainted ones too.")] = "",
    zone: Annotated[str, typer.Option(metavar="ZONE", help="Only nodes of this zone.")] = "",
    parallel: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=1, help=f"How many nodes pull at a time (default: {PARALLEL_DEFAULT}).")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave a DaemonSet, by which new nodes are warm too.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="With --keep: until all nodes are warm, as always without it.")] = False,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long to wait at most.")] = "30m",
) -> int:
    """Pull images onto nodes before pods need them: IMAGE..., those of a workload, or with -n alone all of a namespace.

    Kubernetes pulls them, for pods of that namespace and with their rights. The pods are removed at the end, also by Ctrl-C.
    """
    if images and workload:
        raise WrongUsage("write either IMAGE... or --workload, because a workload's images are pulled with its rights")
    if not images and not workload and not namespace:
        raise WrongUsage("nothing is to be warm; write IMAGE..., --workload deploy/NAME, or -n NAMESPACE for all of its images")
    if keep and parallel:
        raise WrongUsage("--keep has all nodes pull at once; write --parallel without it first, and nothing is left to be pulled")
    seconds_max = seconds(timeout, "--timeout")
    expressions = demands(nodes, zone)
    namespace = namespace or session.access.namespace or "default"
    batches = _wanted(session, namespace, images or [], workload)
    name = _name_of(batches, expressions) if keep else secrets.token_hex(5)
    everywhere = session.access.items("/api/v1/nodes")
    if nodes:
        batches = [Batch(batch.images, tolerant(everywhere, expressions, batch.like)) for batch in batches]
    choices = {number: (batch, chosen(everywhere, expressions, batch.like)) for number, batch in enumerate(batches)}
    node_batches = [
        NodeBatch(number, batch, node, architecture)
        for number, (batch, choice) in choices.items()
        for node, architecture in sorted(choice.taken.items())
    ]
    left_out = {node: why for _, choice in choices.values() for node, why in choice.left_out.items()}
    if not node_batches and not keep:  # what is kept may be for nodes that are still to come
        why = "; ".join(f"{node}: {why}" for node, why in sorted(left_out.items()))
        raise NotThere(f"no node can be made warm{f' ({why})' if why else ': none has these labels'}")
    warming = Warming(session.access, namespace, name, seconds_max)
    if keep:
        warming.keep(batches, expressions)
        if not session.json:
            print_line(f"kept as {namespace}/{name}: darner list warm shows it, darner cool {namespace}/{name} removes it")
    outcomes = [] if keep and not wait else _followed(session, warming, node_batches, parallel or PARALLEL_DEFAULT, keep)
    return _tell(session, f"{namespace}/{name}" if keep else "", outcomes, left_out)


def cool(
    session: ClusterSession,
    name: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME", help="As `darner list warm` shows it.")],
) -> int:
    """Remove what `darner warm --keep` has left. The images stay on their nodes until the kubelets collect them."""
    wanted = object_typed(name, "nothing that is kept", "as `darner list warm` shows it")
    if not forget(session.access, wanted.namespace, wanted.name):
        raise NotThere(f"nothing is kept as {name}; `darner list warm` shows what is")
    if session.json:
        print_json({"removed": name})
    else:
        print_line(f"{name} is removed")
    return ExitCode.FINE


def _wanted(session: ClusterSession, namespace: str, images: Sequence[str], workload: str) -> list[Batch]:
    if images:
        return named(images)
    access = session.access
    if workload:
        found = [access.get(workload_path(namespace, workload))]
    else:
        found = [dict(item) for path in workload_lists(namespace) for item in access.items(path)]
    batches = of_templates(map(template_of, found))
    if not batches:
        what = workload or "workload"
        raise NotThere(f"no {what} with an image that is pulled is in namespace {namespace}")
    return batches


def _name_of(batches: Sequence[Batch], expressions: Sequence[Mapping[str, Any]]) -> str:
    """The same for the same wishes, so that nothing is kept twice."""
    wishes = [[batch.images, batch.like] for batch in batches], expressions
    return hashlib.sha256(json.dumps(wishes, sort_keys=True).encode()).hexdigest()[:10]


def _followed(
    session: ClusterSession, warming: Warming, node_batches: Sequence[NodeBatch], parallel: int, keep: bool
) -> list[Outcome]:
    """With a line for each image of a node that is through, and on a terminal a bar for all that are not."""
    shown = console()
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("images")
    total = sum(len(node_batch.batch.images) for node_batch in node_batches)
    with Progress(*columns, console=shown, transient=True, disable=session.json or not shown.is_terminal) as bar:
        progress = bar.add_task("pulling", total=total)

        def told(outcomes: Sequence[Outcome]) -> None:
            if not session.json:
                for outcome in outcomes:
                    _print_outcome(outcome, shown)
            pulling = sorted(node_batch.node for node_batch in warming.watched)
            more = f" and {len(pulling) - NODES_NAMED_MAX} more" if len(pulling) > NODES_NAMED_MAX else ""
            words = printable(f"{', '.join(pulling[:NODES_NAMED_MAX])}{more}")
            bar.update(progress, advance=len(outcomes), description=words)

        warming.told = told
        return warming.kept(node_batches) if keep else warming.once(node_batches, parallel)


def _print_outcome(outcome: Outcome, on: Console) -> None:
    what = f"{outcome.node}  {outcome.image}  "
    if outcome.state is PullState.FAILED:
        print_line(what, ("failed: ", Shade.BAD), outcome.why, on=on)
    elif outcome.without_agent:
        print_line(what, ("pulled", Shade.WARNING), f" in {span(outcome.seconds)}, without Darner", on=on)
    else:
        print_line(what, ("pulled", Shade.GOOD), f" in {span(outcome.seconds)}", on=on)


def _tell(session: ClusterSession, kept: str, outcomes: Sequence[Outcome], left_out: Mapping[str, str]) -> int:
    failed = [outcome for outcome in outcomes if outcome.state is PullState.FAILED]
    if session.json:
        images = [outcome.as_json() for outcome in sorted(outcomes, key=lambda outcome: (outcome.node, outcome.image))]
        print_json({"kept": kept or None, "images": images, "leftOut": dict(left_out)})
    else:
        for node, why in sorted(left_out.items()):
            print_line(f"{node}  ", ("left out: ", Shade.FAINT), why)
        for why in sorted({outcome.without_agent for outcome in outcomes} - {""}):
            print_line("without Darner: ", why)
        if outcomes:
            nodes = len({outcome.node for outcome in outcomes})
            words = f"{len(failed)} of {len(outcomes)} failed" if failed else f"{len(outcomes)} pulled"
            print_line(f"{words}, on {nodes} node{'s' if nodes != 1 else ''}")
    if any(outcome.why == LEFT for outcome in failed):
        return ExitCode.TIMED_OUT
    return ExitCode.PROBLEM if failed else ExitCode.FINE
