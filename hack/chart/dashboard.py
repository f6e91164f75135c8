"""The dashboard for Grafana: rows of panels, each with the questions that it asks Prometheus.

    python -m hack.chart.dashboard > charts/darner/monitoring/dashboard.json

A test holds that the file in the tree is what this prints, and that it names no metric and no label that no process has.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

WIDTH = 24
"""Of Grafana's grid."""
HEIGHT = 8
STAT_HEIGHT = 4
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
HERE = 'namespace="$namespace"'


@dataclass(frozen=True)
class Panel:
    title: str
    questions: dict[str, str]
    """By legend."""
    unit: str = "short"
    kind: str = "timeseries"
    stacked: bool = False
    means: str = ""


def total(metric: str, by: str = "", **labels: str) -> str:
    """The sum of a gauge."""
    return _sum(f"{metric}{_matching(labels)}", by)


def speed(metric: str, by: str = "", **labels: str) -> str:
    """How much a counter grows in a second."""
    return _sum(f"rate({metric}{_matching(labels)}[$__rate_interval])", by)


def quantile(part: float, metric: str, **labels: str) -> str:
    return f"histogram_quantile({part}, {speed(f'{metric}_bucket', 'le', **labels)})"


def _matching(labels: dict[str, str]) -> str:
    return "{" + ", ".join([HERE, *(f'{name}="{value}"' for name, value in labels.items())]) + "}"


def _sum(of: str, by: str) -> str:
    return f"sum by ({by}) ({of})" if by else f"sum({of})"


RECEIVED = "darner_agent_received_bytes_total"
DURATION = "darner_agent_pull_duration_seconds"

ROWS: dict[str, list[Panel]] = {
    "Pulls": [
        Panel(
            "From other nodes",
            {"": f"{speed(RECEIVED, source='peer')} / {speed(RECEIVED)}"},
            "percentunit",
            "stat",
            means="Of all bytes that fed pulls, those that a node had from another one.",
        ),
        Panel("Arriving now", {"": total("darner_agent_downloads")}, kind="stat", means="Blobs."),
        Panel("Agents ready", {"": f'max(darner_webhook_agents{{{HERE}, state="ready"}})'}, kind="stat"),
        Panel(
            "Versions", {"{{component}} {{version}}": f"count by (component, version) (darner_build_info{{{HERE}}})"}, kind="stat"
        ),
        Panel("Bytes by source", {"{{source}}": speed(RECEIVED, "source")}, "Bps", stacked=True),
        Panel(
            "Bytes that registries sent",
            {
                "to nodes": speed(RECEIVED, source="origin"),
                "to supernodes": speed("darner_supernode_origin_received_bytes_total"),
            },
            "Bps",
            stacked=True,
        ),
        Panel(
            "Time of a pull",
            {
                name: quantile(part, DURATION, outcome="whole")
                for name, part in (("half", 0.5), ("nine of ten", 0.9), ("99 %", 0.99))
            },
            "s",
            means="Of a blob, to its last byte.",
        ),
        Panel(
            "Time to the first byte",
            {
                name: quantile(part, "darner_agent_pull_first_byte_seconds")
                for name, part in (("half", 0.5), ("nine of ten", 0.9))
            },
            "s",
        ),
        Panel("Pulls by outcome", {"{{outcome}}": speed(f"{DURATION}_count", "outcome")}, "ops"),
        Panel(
            "Answers of the registry endpoint",
            {"{{what}} {{status}}": speed("darner_agent_registry_answers_total", "what, status")},
        ),
    ],
    "Swarm": [
        Panel("Nodes at each supernode", {"{{pod}}": total("darner_supernode_connected_nodes", "pod")}),
        Panel("Blobs that are being distributed", {"{{pod}}": total("darner_supernode_tasks", "pod")}),
        Panel("Nodes in quarantine", {"{{pod}}": total("darner_supernode_quarantined_nodes", "pod")}),
        Panel("Pieces that did not come", {"{{verdict}}": speed("darner_agent_piece_failures_total", "verdict")}, "ops"),
        Panel(
            "Left to the registry",
            {
                "{{why}}": speed("darner_agent_swarm_troubles_total", "why"),
                "fallbacks": speed("darner_agent_fallbacks_total"),
            },
            "ops",
        ),
        Panel(
            "Requests to registries", {"{{what}} {{outcome}}": speed("darner_origin_requests_total", "what, outcome")}, "reqps"
        ),
    ],
    "Disks": [
        Panel(
            "Store, of its quota",
            {"{{pod}}": f"{total('darner_store_bytes', 'pod')} / {total('darner_store_quota_bytes', 'pod')}"},
            "percentunit",
        ),
        Panel("Free on the store's disk", {"{{pod}}": total("darner_store_free_bytes", "pod")}, "bytes"),
        Panel("Evictions by reason", {"{{reason}}": speed("darner_store_evictions_total", "reason")}, "ops", stacked=True),
    ],
    "Webhook": [
        Panel("Admissions", {"{{outcome}}": speed("darner_webhook_admissions_total", "outcome")}, "reqps", stacked=True),
        Panel("Left alone, by reason", {"{{reason}}": speed("darner_webhook_left_alone_total", "reason")}, "ops", stacked=True),
        Panel("Pods that got their images back", {"{{reason}}": speed("darner_webhook_reverted_pods_total", "reason")}, "ops"),
        Panel("Paused", {"{{kind}}": f"max by (kind) (darner_webhook_paused{{{HERE}}})"}),
        Panel("Time of an admission", {"99 %": quantile(0.99, "darner_webhook_admission_duration_seconds")}, "s"),
        Panel(
            "Certificate, time left",
            {"": f"min(darner_webhook_certificate_expiry_timestamp_seconds{{{HERE}}}) - time()"},
            "s",
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for row, its in ROWS.items():
        panels.append({"type": "row", "title": row, "gridPos": {"x": 0, "y": top, "w": WIDTH, "h": 1}, "panels": []})
        top += 1
        for kind, width, height in (("stat", 6, STAT_HEIGHT), ("timeseries", 12, HEIGHT)):
            left = 0
            for panel in (panel for panel in its if panel.kind == kind):
                panels.append(_shown(panel, {"x": left, "y": top, "w": width, "h": height}))
                left += width
                if left == WIDTH:
                    left, top = 0, top + height
            top += height if left else 0
    for number, each in enumerate(panels, 1):
        each["id"] = number
    return {
        "title": "Darner",
        "uid": "darner",
        "tags": ["darner"],
        "schemaVersion": 39,
        "timezone": "browser",
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [_DATASOURCE, _NAMESPACE]},
        "panels": panels,
    }


_DATASOURCE = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
_NAMESPACE = {
    "name": "namespace",
    "label": "Namespace",
    "type": "query",
    "datasource": SOURCE,
    "query": {"query": "label_values(darner_build_info, namespace)", "refId": "namespace"},
    "refresh": 2,
}


def _shown(panel: Panel, where: dict[str, int]) -> dict[str, Any]:
    drawn = {"custom": {"fillOpacity": 25, "stacking": {"mode": "normal"}}} if panel.stacked else {}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.means,
        "datasource": SOURCE,
        "gridPos": where,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, **drawn}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + number), "datasource": SOURCE, "expr": question, "legendFormat": legend}
            for number, (legend, question) in enumerate(panel.questions.items())
        ],
    }


if __name__ == "__main__":
    print(json.dumps(dashboard(), indent=1))
