"""Checks of how nodes find each other: names of supernodes, their channels, and clocks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cli.doctor.facts import Facts, PodProbe
from cli.doctor.finding import Finding, fine, problem, some, unknown, warning
from webhook.kube.api import mapping_at, text_at

CLOCK_SECONDS_MAX = 10.0
"""The API server dates objects to a second, and a round trip may take a few."""


def supernodes(facts: Facts) -> Iterator[Finding]:
    """Whether each agent that was asked knows the supernodes' addresses and reaches their channels."""
    agents = [probe for probe in facts.probes if probe.component == "agent"]
    asked = [probe for probe in agents if not probe.trouble and probe.addresses]
    trouble = [*_nameless(asked), *_cut_off(asked), *_alone(agents)]
    yield from trouble
    if asked and not trouble:
        yield fine(f"{len(asked)} agents that were asked find the supernodes and reach them")
    for probe in agents:
        if probe.trouble:
            yield unknown(f"{probe.pod} on {probe.node} could not be asked: {probe.trouble}", "", "an-agent-could-not-be-asked")


def _nameless(asked: Sequence[PodProbe]) -> Iterator[Finding]:
    unknown_to = [(name, probe.node) for probe in asked for name, addresses in probe.addresses.items() if not addresses]
    if unknown_to:
        names, nodes = {name for name, _ in unknown_to}, {node for _, node in unknown_to}
        what = f"agents on {some(nodes)} find no address of {some(names)} in the cluster's DNS"
        remedy = (
            "see whether CoreDNS runs, and whether these nodes reach it: kubectl -n kube-system get pods -l k8s-app=kube-dns; "
            "where the cluster's domain is not cluster.local, set clusterDomain"
        )
        yield problem(what, remedy, "supernodes-are-not-found")


def _cut_off(asked: Sequence[PodProbe]) -> Iterator[Finding]:
    nodes: dict[tuple[str, str], list[str]] = {}
    for probe in asked:
        for name, words in probe.answered.items():
            if words:
                nodes.setdefault((name, words), []).append(probe.node)
    for (name, words), names in sorted(nodes.items()):
        what = f"agents on {some(names)} do not reach the channel of {name}: {words}"
        yield problem(what, "let nodes reach TCP port 65004 of the supernodes' pods", "supernodes-are-not-reached")


def _alone(agents: Sequence[PodProbe]) -> Iterator[Finding]:
    """Agents that pull without the others, by their own word."""
    for probe in agents:
        if alone := mapping_at(probe.state, "alone"):
            left = alone.get("untilSeconds")
            until = f", for another {left:.0f} s" if isinstance(left, int | float) else ""
            what = f"the agent on {probe.node} pulls without the others{until}: {text_at(alone, 'why')}"
            yield warning(what, "see what else is told of supernodes here, and of nodes", "an-agent-is-left-alone")


def clocks(facts: Facts) -> Iterator[Finding]:
    """How far clocks are from the API server's. Darner needs no common time; tokens, certificates and registries' logins do."""
    if facts.clock_ahead_seconds is None:
        return
    known = {
        f"{probe.pod} on {probe.node}": probe.clock_ahead_seconds - facts.clock_ahead_seconds
        for probe in facts.probes
        if probe.clock_ahead_seconds is not None
    }
    wrong = {who: ahead for who, ahead in known.items() if abs(ahead) > CLOCK_SECONDS_MAX}
    for who, ahead in sorted(wrong.items()):
        what = f"the clock of {who} is {abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the API server's"
        yield warning(what, "set it by NTP: certificates and tokens are not valid at another time", "a-clock-is-wrong")
    if known and not wrong:
        yield fine(f"the clocks in {len(known)} pods that were asked are right to {CLOCK_SECONDS_MAX:.0f} s")
