"""Nodes of the cluster by their names, as the API server has them: one by one, or in pages where they are many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from webhook.errors import Unreachable
from webhook.kube.api import Api, Object, items_of, mapping_at, text_at

SINGLE_MAX = 50
"""More nodes than these are read in pages: all of them are new to whoever asks."""
PAGE_NODES = 100
"""A node may be tens of KiB, most of it names of images."""
PAGES_MAX = 1000


def nodes_named(api: Api, names: frozenset[str]) -> Iterator[Object]:
    """Those of the names that exist; where there are many, others too. Raises Unreachable."""
    if len(names) <= SINGLE_MAX:
        yield from filter(None, (_get(api, f"/api/v1/nodes/{name}", {}) for name in sorted(names)))
        return
    query = {"limit": str(PAGE_NODES)}
    for _ in range(PAGES_MAX):
        page = _get(api, "/api/v1/nodes", query)
        yield from items_of(page) or ()
        query["continue"] = text_at(mapping_at(page, "metadata"), "continue")
        if not query["continue"]:
            return


def _get(api: Api, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
    found = api.ask("GET", path, query=query)
    if found.status not in (200, 404):  # A node may be gone before its agent's address is.
        raise Unreachable(f"the API server answered {found.status} about {path}")
    return found.document if found.status == 200 else {}
