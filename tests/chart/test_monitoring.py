"""What the chart gives to Prometheus and Grafana: each alert fires when it should and is silent when it should be.

Alerts are evaluated by promtool on series as a scrape has them. What alerts, dashboard and these series name, the processes have.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from hack.chart.dashboard import dashboard
from hack.chart.helm import CHART, ROOT, Helm, Object
from hack.pages.metrics import exposed, metrics, series

Render = Callable[..., list[Object]]

PROMTOOL_SECONDS_MAX = 60
RUNBOOKS = "https://wiki.example.com/runbooks"
ALL = {"monitoring": {"rules": {"enabled": True, "runbooks": RUNBOOKS}, "dashboard": {"enabled": True}}}
OTHERS = {"apiserver_admission_webhook_fail_open_count": {"name"}}
"""Of the API server (kube-apiserver's metrics.go)."""
TARGET = {"namespace", "pod", "node", "container", "endpoint", "job", "instance", "le"}
"""Labels that a scrape gives to every series, and that of a histogram's buckets."""


@dataclass(frozen=True)
class Case:
    """Series by name and labels, each with its values minute by minute, as promtool writes them; and at which minute to look."""

    alert: str
    when: str
    at: int
    given: dict[str, str]
    fires: dict[str, str] | None = None
    """The labels of the alert that fires, apart from its name and severity; None when it is silent."""
    severity: str = field(default="warning", kw_only=True)

    @property
    def name(self) -> str:
        return f"{self.alert}: {self.when}"


def of(metric: str, pod: str = "darner-webhook-1", **labels: str) -> str:
    given = {"namespace": "darner-system", "pod": pod, **labels}
    return f"{metric}{{{', '.join(f'{name}={json.dumps(value)}' for name, value in given.items())}}}"


FAILED = of("darner_webhook_admissions_total", outcome="failed")
REWRITTEN = of("darner_webhook_admissions_total", outcome="rewritten")
FAILS_OPEN = 'apiserver_admission_webhook_fail_open_count{name="pods.darner.dev", type="admitting"}'
OTHER_FAILS_OPEN = 'apiserver_admission_webhook_fail_open_count{name="policies.example.com", type="admitting"}'
LEADING = [of("darner_webhook_leading", pod) for pod in ("darner-webhook-1", "darner-webhook-2")]
NOT_READY = [of("darner_webhook_agents", pod, state="not-ready") for pod in ("darner-webhook-1", "darner-webhook-2")]
EXCLUDED = of("darner_webhook_agents", state="excluded")
REVERTED = of("darner_webhook_reverted_pods_total", reason="unclear")
PAUSED = of("darner_webhook_paused", kind="registry")
EXPIRY = of("darner_webhook_certificate_expiry_timestamp_seconds")
CERTIFICATE_FAILURES = of("darner_webhook_certificate_failures_total")
SUPERNODES = [of("darner_agent_supernodes", pod) for pod in ("darner-agent-a", "darner-agent-b")]
CONNECTED = [of("darner_agent_supernodes_connected", pod) for pod in ("darner-agent-a", "darner-agent-b")]
REFUSALS = of("darner_store_refusals_total", "darner-agent-a")
BY_DISK, BY_QUOTA, DAMAGED = (
    of("darner_store_evictions_total", "darner-agent-a", reason=reason) for reason in ("disk", "quota", "damaged")
)
CORRUPT, MISSING = (
    of("darner_agent_piece_failures_total", "darner-agent-a", verdict=verdict) for verdict in ("corrupt", "missing")
)
AGENT_A = {"namespace": "darner-system", "pod": "darner-agent-a"}

STEADY = "7x120"
HEALTHY = {
    FAILED: "0x120",
    REWRITTEN: "0+20x120",
    OTHER_FAILS_OPEN: "0+3x120",
    LEADING[0]: "1x120",
    LEADING[1]: "0x120",
    NOT_READY[0]: "0x120",
    REVERTED: STEADY,
    PAUSED: "0x120",
    EXPIRY: "2592000x120",
    CERTIFICATE_FAILURES: STEADY,
    SUPERNODES[0]: "2x120",
    CONNECTED[0]: "2x120",
    SUPERNODES[1]: "0x120",
    CONNECTED[1]: "0x120",
    REFUSALS: STEADY,
    BY_DISK: STEADY,
    BY_QUOTA: "0+5x120",
    DAMAGED: STEADY,
    CORRUPT: STEADY,
    MISSING: "0+2x120",
}
"""An ordinary two hours: images come and go, another webhook fails, and one node is meant to have no supernode."""

CASES = [
    Case("DarnerWebhookFailsOpen", "the webhook fails all the time", 20, {FAILED: "0+1x30"}, {}),
    Case("DarnerWebhookFailsOpen", "the API server does not reach it", 20, {FAILS_OPEN: "0+2x30"}, {}),
    Case("DarnerWebhookFailsOpen", "it failed for a moment", 20, {FAILED: "0x3 5x30"}),
    Case("DarnerNoLeader", "neither replica leads", 10, dict.fromkeys(LEADING, "0x30"), {}, severity="critical"),
    Case("DarnerNoLeader", "there is no webhook", 10, {}, {"namespace": "darner-system"}, severity="critical"),
    Case("DarnerNoLeader", "the other one takes over", 10, {LEADING[0]: "1x4 0x20", LEADING[1]: "0x6 1x20"}),
    Case("DarnerAgentsNotReady", "an agent is not ready", 20, dict.fromkeys(NOT_READY, "1x30"), {}),
    Case("DarnerAgentsNotReady", "nodes are to have none", 20, {NOT_READY[0]: "0x30", EXCLUDED: "4x30"}),
    Case("DarnerAgentsNotReady", "agents are being replaced", 20, {NOT_READY[0]: "3x10 0x20"}),
    Case("DarnerPodsReverted", "a pod got its image back", 20, {REVERTED: "0x15 1x30"}, {}),
    Case("DarnerPodsReverted", "that was an hour ago", 80, {REVERTED: "0x15 1x90"}),
    Case("DarnerRegistryPaused", "a registry is left alone", 10, {PAUSED: "1x30"}, {"kind": "registry"}),
    Case("DarnerRegistryPaused", "the pause was short", 10, {PAUSED: "1x3 0x30"}),
    Case("DarnerCertificate", "it ends in six days", 20, {EXPIRY: f"{6 * 86400}x30"}, {}, severity="critical"),
    Case(
        "DarnerCertificate",
        "it cannot be kept",
        20,
        {EXPIRY: "2592000x30", CERTIFICATE_FAILURES: "0+1x30"},
        {},
        severity="critical",
    ),
    Case("DarnerCertificate", "nobody has one yet", 20, {EXPIRY: "0x30"}),
    Case(
        "DarnerNoSupernode",
        "an agent is connected to none of two",
        15,
        {SUPERNODES[0]: "2x30", CONNECTED[0]: "0x30", SUPERNODES[1]: "2x30", CONNECTED[1]: "1x30"},
        {},
        severity="critical",
    ),
    Case("DarnerNoSupernode", "a supernode is being replaced", 15, {SUPERNODES[0]: "1x30", CONNECTED[0]: "1 0x3 1x30"}),
    Case("DarnerNoSupernode", "none is wanted", 15, {SUPERNODES[0]: "0x30", CONNECTED[0]: "0x30"}),
    Case("DarnerStoreFull", "blobs are refused", 30, {REFUSALS: "0+1x40", BY_DISK: "0x40"}, AGENT_A),
    Case("DarnerStoreFull", "others fill the disk", 30, {REFUSALS: "0x40", BY_DISK: "0+1x40"}, AGENT_A),
    Case("DarnerStoreFull", "the quota is used", 30, {REFUSALS: "0x40", BY_DISK: "0x40", BY_QUOTA: "0+9x40"}),
    Case("DarnerCorruptPieces", "a piece was wrong", 20, {CORRUPT: "0x15 1x30"}, AGENT_A),
    Case("DarnerCorruptPieces", "a disk has lost bytes", 20, {DAMAGED: "0x15 1x30"}, AGENT_A),
    Case("DarnerCorruptPieces", "pieces were only late", 20, {CORRUPT: "0x30", MISSING: "0+4x30"}),
]


@pytest.fixture(scope="session")
def rules(render: Render) -> list[dict[str, Any]]:
    """The groups of the PrometheusRule."""
    (rule,) = (item for item in render(ALL) if item["kind"] == "PrometheusRule")
    return rule["spec"]["groups"]  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def alerts(rules: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {rule["alert"]: rule for group in rules for rule in group["rules"]}


def promtool(directory: Path, *command: str) -> None:
    done = subprocess.run(
        ["promtool", *command], cwd=directory, capture_output=True, text=True, timeout=PROMTOOL_SECONDS_MAX, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def evaluate(directory: Path, rules: list[dict[str, Any]], cases: list[Case], expected: Callable[[Case], Any]) -> None:
    """Without annotations, which promtool would want word by word."""
    bare = [
        group | {"rules": [{name: value for name, value in rule.items() if name != "annotations"} for rule in group["rules"]]}
        for group in rules
    ]
    (directory / "rules.yaml").write_text(yaml.safe_dump({"groups": bare}))
    tests = [
        {
            "name": case.name,
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.given.items()],
            "alert_rule_test": [{"eval_time": f"{case.at}m", "alertname": case.alert, "exp_alerts": expected(case)}],
        }
        for case in cases
    ]
    (directory / "tests.yaml").write_text(
        yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": tests})
    )
    promtool(directory, "test", "rules", "tests.yaml")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_alert_fires_when_it_should_and_is_silent_when_it_should_be(
    tmp_path: Path, rules: list[dict[str, Any]], case: Case
) -> None:
    def expected(case: Case) -> list[dict[str, Any]]:
        return [] if case.fires is None else [{"exp_labels": {"severity": case.severity, **case.fires}}]

    evaluate(tmp_path, rules, [case], expected)


def test_nothing_fires_on_an_ordinary_day(tmp_path: Path, rules: list[dict[str, Any]], alerts: dict[str, dict[str, Any]]) -> None:
    quiet = [Case(alert, "on an ordinary day", at, HEALTHY) for alert in alerts for at in (1, 30, 90)]
    evaluate(tmp_path, rules, quiet, lambda _: [])


def test_every_alert_has_a_case_in_which_it_fires_and_one_in_which_it_is_silent(alerts: dict[str, dict[str, Any]]) -> None:
    assert {case.alert for case in CASES if case.fires is not None} == set(alerts)
    assert {case.alert for case in CASES if case.fires is None} == set(alerts)


def test_the_rules_are_what_prometheus_reads_their_words_too(tmp_path: Path, rules: list[dict[str, Any]]) -> None:
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": rules}))
    promtool(tmp_path, "check", "rules", "rules.yaml")


def test_every_alert_has_words_a_severity_and_a_page_that_says_what_to_do(alerts: dict[str, dict[str, Any]]) -> None:
    for name, alert in alerts.items():
        assert alert["labels"]["severity"] in ("warning", "critical")
        assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
        assert alert["annotations"]["runbook_url"] == f"{RUNBOOKS}/{name}"
        page = (ROOT / "docs" / "runbooks" / f"{name}.md").read_text()
        assert page.startswith(f"# {name}\n")
        for section in ("What it means", "What to look at", "What to do"):
            assert f"\n## {section}\n" in page, (name, section)
    assert {path.stem for path in (ROOT / "docs" / "runbooks").glob("Darner*.md")} == set(alerts)


# Names.


def known() -> dict[str, set[str]]:
    """The series of all processes, and the labels of each."""
    return OTHERS | {name: set(metric._labelnames) for _, metric in metrics() for name in series(metric)}


def children() -> dict[str, dict[str, set[str]]]:
    """Of the series whose labels' values the code names at once, these values."""
    found: dict[str, dict[str, set[str]]] = {}
    for _, metric in metrics():
        for values in getattr(metric, "_metrics", {}):
            for name in series(metric):
                for label, value in zip(metric._labelnames, values, strict=True):
                    found.setdefault(name, {}).setdefault(label, set()).add(value)
    return found


def questions(rules: list[dict[str, Any]]) -> Iterator[str]:
    yield from (rule["expr"] for group in rules for rule in group["rules"])
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


NAME = re.compile(r"\b((?:darner|apiserver|kube|container)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")


def test_alerts_dashboard_and_these_cases_name_only_metrics_and_labels_that_the_processes_have(
    rules: list[dict[str, Any]],
) -> None:
    have, values = known(), children()
    given = [name for case in [*CASES, Case("", "", 0, HEALTHY)] for name in case.given]
    asked = [*questions(rules), *given]
    assert len(asked) > 40
    for question in asked:
        named = NAME.findall(question)
        assert named, question
        labels = set(TARGET)
        for name, matchers in named:
            assert name in have, f"no process has {name}: {question}"
            labels |= have[name]
            for label, value in MATCHER.findall(matchers):
                assert label in have[name] | TARGET | ({"type"} if name in OTHERS else set()), question
                choices = values.get(name, {}).get(label)
                assert not choices or value in choices or label in TARGET, f"{name} has no {label} {value}, only {choices}"
        for group in GROUPING.findall(question):
            assert {label.strip() for label in group.split(",")} <= labels, question


def test_pages_name_only_metrics_that_the_processes_have() -> None:
    families = {metric._name for _, metric in metrics()} | {exposed(metric) for _, metric in metrics()}
    pages = [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    for page in pages:
        for name in re.findall(r"\bdarner_(?:agent|supernode|webhook|store|origin|build)_\w*[a-z]\b(?!\.)", page.read_text()):
            assert name in families | set(known()), f"{page.name}: {name}"


def test_a_legend_names_only_labels_that_its_question_keeps() -> None:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            kept = {label.strip() for group in GROUPING.findall(target["expr"]) for label in group.split(",")}
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= kept, target


# Objects.


def test_the_dashboard_in_the_chart_is_as_it_is_written_and_as_grafana_is_given_it(render: Render) -> None:
    text = (CHART / "monitoring" / "dashboard.json").read_text()
    assert text == json.dumps(dashboard(), indent=1) + "\n", (
        "write it anew: python -m hack.chart.dashboard > charts/darner/monitoring/dashboard.json"
    )
    (found,) = (item for item in render(ALL) if item["kind"] == "ConfigMap" and "darner.json" in item["data"])
    assert json.loads(found["data"]["darner.json"]) == dashboard()
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"


def test_none_of_it_is_there_unless_it_is_asked_for(default: list[Object]) -> None:
    assert not [item for item in default if item["apiVersion"].startswith("monitoring.coreos.com/")]
    assert not [item for item in default if item["metadata"]["labels"]["app.kubernetes.io/component"] == "monitoring"]


@pytest.mark.parametrize("kind", ["PodMonitor", "ServiceMonitor"])
def test_a_monitor_finds_the_http_port_of_every_component(render: Render, kind: str) -> None:
    objects = render({"monitoring": {"monitor": kind, "interval": "15s", "labels": {"release": "prometheus"}}})
    (monitor,) = (item for item in objects if item["kind"] == kind)
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    (endpoint,) = monitor["spec"]["podMetricsEndpoints" if kind == "PodMonitor" else "endpoints"]
    assert (endpoint["port"], endpoint["path"], endpoint["interval"]) == ("http", "/metrics", "15s")
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    if kind == "ServiceMonitor":
        found = [item for item in objects if item["kind"] == "Service" and wanted <= item["metadata"]["labels"].items()]
        ports = [{port["name"] for port in item["spec"]["ports"]} for item in found]
    else:
        pods = [item["spec"]["template"] for item in objects if item["kind"] in ("DaemonSet", "StatefulSet", "Deployment")]
        found = [pod for pod in pods if wanted <= pod["metadata"]["labels"].items()]
        ports = [{port["name"] for port in pod["spec"]["containers"][0]["ports"]} for pod in found]
    assert len(found) == 3
    assert all("http" in names for names in ports)


def test_without_a_webhook_there_is_no_alert_about_it(render: Render) -> None:
    objects = render(ALL | {"webhook": {"enabled": False}, "swarm": {"existingSecret": "key"}})
    (rule,) = (item for item in objects if item["kind"] == "PrometheusRule")
    assert [group["name"] for group in rule["spec"]["groups"]] == ["darner-nodes"]


def test_a_monitor_of_another_kind_is_refused(helm: Helm) -> None:
    refused = helm.template({"monitoring": {"monitor": "Probe"}})
    assert refused.returncode != 0
    assert "monitor" in refused.stderr
