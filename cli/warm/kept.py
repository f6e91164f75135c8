"""What `darner warm --keep` has left in a cluster, as `darner list warm` shows it."""

from __future__ import annotations

from typing import Any

from cli.cluster import ClusterAccess
from cli.output import Cell, Shade
from cli.warm.objects import IMAGES, NAME
from cli.warm.warming import APPS
from webhook.kube.api import mapping_at, text_at

COLUMNS = ("name", "nodes", "images")


def kept(cluster: ClusterAccess, namespace: str) -> list[dict[str, Any]]:
    """A row for each call of the command, in all namespaces if none is named. A pod of it is ready once its images are there."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    where = f"{APPS}/namespaces/{namespace}/daemonsets" if namespace else f"{APPS}/daemonsets"
    for item in cluster.items(where, NAME):
        metadata, status = mapping_at(item, "metadata"), mapping_at(item, "status")
        key = text_at(metadata, "namespace"), text_at(mapping_at(metadata, "labels"), NAME)
        row = rows.setdefault(key, {"name": "/".join(key), "nodes": 0, "warm": 0, "images": []})
        row["nodes"] += status.get("desiredNumberScheduled") or 0
        row["warm"] += status.get("numberReady") or 0
        images = text_at(mapping_at(metadata, "annotations"), IMAGES).splitlines()
        row["images"] += [image for image in images if image not in row["images"]]
    return [row for _, row in sorted(rows.items())]


def cells(row: dict[str, Any]) -> list[Cell]:
    shade = Shade.GOOD if row["warm"] == row["nodes"] else Shade.WARNING
    return [row["name"], (f"{row['warm']}/{row['nodes']}", shade), ", ".join(row["images"])]
