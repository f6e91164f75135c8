"""`darner status`: whether all of Darner runs, and if not, what does not and why."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.errors import ExitCode
from cli.output import Cell, Shade, print_json, print_line, print_table, printable, size, span
from cli.session import Session, seconds
from cli.status.overview import Component, Overview, overview

LOOK_SECONDS = 2.0
SOURCES = ("peer", "supernode", "origin")


def status(
    session: Session,
    wait: Annotated[str, typer.Option(metavar="TIME", help="Until all is ready, for so long at most: 90s, 5m.")] = "",
) -> int:
    """Say whether all of Darner runs: webhook, supernodes, agents, and why not; 1 if something does not."""
    deadline = time.monotonic() + (seconds(wait, "--wait") if wait else 0.0)
    seen, said = overview(session.installation), ""
    while seen.problems and (left := deadline - time.monotonic()) > 0:
        if seen.problems[0] != said:
            said = seen.problems[0]
            print(f"waiting: {printable(said)}", file=sys.stderr)  # noqa: T201
        time.sleep(min(LOOK_SECONDS, left))
        seen = overview(session.installation)
    if session.json:
        print_json(as_json(seen))
    else:
        show(seen)
    if not seen.problems:
        return ExitCode.FINE
    return ExitCode.TIMED_OUT if wait else ExitCode.PROBLEM


def as_json(seen: Overview) -> dict[str, Any]:
    return {
        "release": seen.release,
        "namespace": seen.namespace,
        "ready": not seen.problems,
        "problems": seen.problems,
        "components": {item.name: asdict(item) for item in seen.components},
        "webhookTrusted": seen.webhook_trusted,
        "certificateSeconds": seen.certificate_seconds,
        "lastAdmissionSecondsAgo": seen.last_admission_seconds,
        "bytes24h": seen.bytes_24h,
        "unrewrittenPods": seen.unrewritten_pods,
        "leftAlone": [asdict(item) for item in seen.left_alone],
        "quarantines": [asdict(item) for item in seen.quarantines],
        "unknown": seen.unknown,
    }


def show(seen: Overview) -> None:
    ready = ("not ready", Shade.BAD) if seen.problems else ("ready", Shade.GOOD)
    print_line(f"Release {seen.release} in {seen.namespace}: ", ready)
    print_table(["what", "ready", ""], [_row(component) for component in seen.components])
    for component in seen.components:
        for item in component.troubles:
            print_line((f"  {item.pod} on {item.node or 'no node'}: ", Shade.WARNING), item.why)
        for words in component.refusals:
            print_line((f"  a pod of {component.name} cannot be made: ", Shade.WARNING), words)
    certificate = "not known" if seen.certificate_seconds is None else f"ends in {span(seen.certificate_seconds)}"
    admission = "none yet" if seen.last_admission_seconds is None else f"{span(seen.last_admission_seconds)} ago"
    unrewritten = "not known" if seen.unrewritten_pods is None else str(seen.unrewritten_pods)
    print_table(
        ["", ""],
        [
            ("Certificate of the webhook", certificate),
            ("Last admission", admission),
            ("Bytes in 24 h", _bytes(seen.bytes_24h)),
            ("Pods that got their images back", unrewritten),
        ],
    )
    for left in (*seen.left_alone, *seen.quarantines):
        until = "" if left.seconds is None else f", for another {span(left.seconds)}"
        words = "is no source" if left.kind == "quarantine" else "is left alone"
        print_line((f"  {left.name} {words}{until}: ", Shade.WARNING), left.why)
    for problem in seen.problems:
        print_line(("Problem: ", Shade.BAD), problem)
    for words in seen.unknown:
        print_line(("Not known: ", Shade.FAINT), words)


def _row(component: Component) -> list[Cell]:
    good = component.all_ready
    return [
        component.name,
        (f"{component.ready}/{component.wanted}", Shade.GOOD if good else Shade.BAD),
        "" if good else "see below",
    ]


def _bytes(counts: dict[str, int]) -> str:
    total = sum(counts.values())
    if not total:
        return "none"
    shown = [f"{size(counts.get(source, 0))} from {source} ({100 * counts.get(source, 0) / total:.0f} %)" for source in SOURCES]
    return ", ".join(shown)
