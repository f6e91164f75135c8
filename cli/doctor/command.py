"""`darner doctor`: gathers, checks, and tells what it found, with what to do about it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Annotated

import typer

from cli.doctor.checks import all_findings
from cli.doctor.finding import Finding, Severity, found_a_problem
from cli.doctor.gather import Gatherer
from cli.doctor.pulling import Puller, namespace_for
from cli.errors import ExitCode, NotThere, WrongUsage
from cli.output import Shade, print_json, print_line
from cli.release import USUAL_NAMESPACE
from cli.session import Session

SHADES = {
    Severity.FINE: Shade.GOOD,
    Severity.UNKNOWN: Shade.FAINT,
    Severity.WARNING: Shade.WARNING,
    Severity.PROBLEM: Shade.BAD,
}
WORST_FIRST = list(Severity)[::-1]
PULL_SECONDS_MAX = 300.0

Found = tuple[str, Finding]
"""The name of a check, and what it found."""


def doctor(
    session: Session,
    pre: Annotated[bool, typer.Option("--pre", help="Before it is installed: whether the cluster would take it.")] = False,
    pull: Annotated[
        str, typer.Option(metavar="IMAGE", help="Pull it on two nodes, and show where the bytes of the second came from.")
    ] = "",
    pull_in: Annotated[
        str, typer.Option(metavar="NAMESPACE", help="Where --pull makes its two pods (default: one that has opted in).")
    ] = "",
) -> int:
    """Look for what stands in Darner's way, before and after it is installed; each finding with its remedy.

    Only --pull changes anything: it makes two pods, and removes them. All else is read, or tried as a dry run.
    """
    if pre and pull:
        raise WrongUsage("--pull takes an installation, and --pre is for before there is one; write one of them")
    if pull_in and not pull:
        raise WrongUsage("--pull-in says where --pull makes its pods; write --pull IMAGE too")
    found = list(_before(session) if pre else _after(session, pull, pull_in))
    _tell(session, found)
    return ExitCode.PROBLEM if found_a_problem(finding for _, finding in found) else ExitCode.FINE


def _before(session: Session) -> Iterator[Found]:
    yield from all_findings(Gatherer(session.access, session.namespace or USUAL_NAMESPACE).facts())


def _after(session: Session, image: str, namespace: str) -> Iterator[Found]:
    try:
        installation = session.installation
    except NotThere as error:
        raise NotThere(f"{error}; darner doctor --pre looks at a cluster before that") from None
    gatherer = Gatherer(session.access, installation.namespace, installation)
    yield from all_findings(gatherer.facts())
    if image:
        puller = Puller(gatherer, installation, namespace_for(gatherer, namespace), PULL_SECONDS_MAX, _note)
        yield from (("pull", finding) for finding in puller.findings(image))


def _tell(session: Session, found: Iterable[Found]) -> None:
    found = sorted(found, key=lambda item: WORST_FIRST.index(item[1].severity))
    if session.json:
        print_json({"findings": [{"check": name, **finding.as_json()} for name, finding in found]})
        return
    for _, finding in found:
        print_line((f"{finding.severity.value:<8}", SHADES[finding.severity]), f" {finding.what}")
        for label, words in (("do", finding.remedy), ("see", finding.page)):
            if words:
                print_line((f"{'':8} {label}: ", Shade.FAINT), words)


def _note(words: str) -> None:
    if sys.stderr.isatty():
        print(words, file=sys.stderr, flush=True)  # noqa: T201
