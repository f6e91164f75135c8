"""Doctor and the webhook's own rules, together: a dry run is admitted by what a real pod would be admitted by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from agent.values.pattern import pattern
from cli.doctor.admission import rewrites, webhook
from cli.doctor.facts import Facts
from cli.doctor.finding import Finding, Severity
from cli.doctor.gather import Gatherer
from cli.labels import COMPONENT
from tests.unit.cli.doctor.conftest import NAMESPACE, TableCluster, admitted
from tests.webhook_lab import applied, review
from webhook.admission.handler import Judge
from webhook.admission.policy import Policy
from webhook.admission.review import answer, read
from webhook.gates import LeftAlone, Reason, Rewrite
from webhook.kube.api import ApiAnswer
from webhook.pods import Pod

WORKLOAD = {"metadata": {"labels": {COMPONENT: "webhook"}}}
CONFIGURATION = {"webhooks": [{"clientConfig": {"caBundle": "x"}}]}


def no_agent(_namespace: str, _pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterator[LeftAlone]:
    yield LeftAlone("pod", Reason.AGENT_NOT_READY, "agents are ready on 0 of 3 nodes")


def findings(cluster: TableCluster, judge: Judge) -> list[Finding]:
    """Of a namespace whose pods this webhook is asked about."""

    def admission(namespace: str, shown: dict[str, Any]) -> ApiAnswer:
        asked = read(json.dumps(review(shown, dryRun=True, namespace=namespace)).encode())
        return admitted(namespace, applied(shown, answer(asked, asyncio.run(judge.verdict(asked)))["response"]))

    cluster.admission = admission
    trial = Gatherer(cluster.access, NAMESPACE).rewrite_trial("shop", "quay.io/tools:1")
    assert trial
    facts = Facts(NAMESPACE, workloads=[WORKLOAD], configuration=CONFIGURATION, rewrite_trials=[trial])
    return [*webhook(facts), *rewrites(facts)]


@pytest.mark.parametrize(
    ("judge", "severity", "words"),
    [
        (Judge(Policy()), Severity.FINE, "a pod with quay.io/tools:1 would be rewritten"),
        (Judge(Policy(exclude=(pattern("quay.io"),))), Severity.WARNING, "quay.io/tools is excluded"),
        (Judge(Policy(excluded_namespaces=frozenset({"shop"}))), Severity.WARNING, "namespace shop is excluded"),
        (Judge(Policy(), (no_agent,)), Severity.WARNING, "agents are ready on 0 of 3 nodes"),
    ],
)
def test_whatever_the_webhook_decides_is_told_and_that_it_was_reached(
    cluster: TableCluster, judge: Judge, severity: Severity, words: str
) -> None:
    reached, decided = findings(cluster, judge)
    assert reached.what == "API servers reach the webhook, and take its answers"
    assert (decided.severity, words in decided.what) == (severity, True)
