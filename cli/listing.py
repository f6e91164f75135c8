"""`darner list`: nodes, images, swarms, pauses and what is kept warm, once or for as long as somebody looks."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import typer

from cli.errors import CommandError, ExitCode
from cli.output import Cell, Shade, print_json, print_table, printable, size, span
from cli.pods import is_ready, name_of, node_of
from cli.release import Installation
from cli.session import ClusterSession, Session, asks_the_cluster
from cli.state import Asked, agent_states, left_alone_by_supernodes, pauses, quarantines, supernode_states
from cli.warm import kept
from webhook.kube.api import mapping_at, mappings_at, text_at

LOOK_SECONDS = 2.0
DIGEST_SHOWN = 19
"""Characters: `sha256:` and twelve more, as container tools show them. JSON has all."""

Watch = Annotated[bool, typer.Option("--watch", "-w", help="Look again every two seconds, and print what has changed.")]
Row = dict[str, Any]

app = typer.Typer(
    help="List what there is: nodes, images, swarms, pauses, what is kept warm.", rich_markup_mode=None, no_args_is_help=True
)


class ListCommand(NamedTuple):
    """One kind of list: the columns of its table, a row's cells, and where rows come from."""

    columns: Sequence[str]
    cells: Callable[[Row], Sequence[Cell]]
    rows: Callable[[], tuple[list[Row], list[str]]]
    """And why some may be missing."""


@app.command()
@asks_the_cluster
def nodes(session: Session, watch: Watch = False) -> int:
    """Nodes with an agent: whether it is ready and connected, its zone, what it has and what it received."""
    columns = "node", "agent", "supernodes", "zone", "blobs", "bytes 24h", "source"
    return _listed(session, watch, ListCommand(columns, _node_cells, lambda: _nodes(session.installation)))


@app.command()
@asks_the_cluster
def images(session: Session, watch: Watch = False) -> int:
    """Images that agents keep, and on how many nodes; and those that were loaded. Asks every agent and supernode."""
    columns = "image", "digest", "size", "nodes", "last used", "loaded"
    return _listed(session, watch, ListCommand(columns, _image_cells, lambda: _images(session.installation)))


@app.command()
@asks_the_cluster
def swarms(session: Session, watch: Watch = False) -> int:
    """Blobs that nodes exchange now."""
    columns = "blob", "image", "size", "taking", "holding", "progress", "left"
    return _listed(session, watch, ListCommand(columns, _swarm_cells, lambda: _swarms(session.installation)))


@app.command("pauses")
@asks_the_cluster
def show_pauses(session: Session, watch: Watch = False) -> int:
    """Who is left alone, or is no source, and until when."""
    columns = "kind", "name", "for another", "why"
    return _listed(session, watch, ListCommand(columns, _pause_cells, lambda: _pauses(session.installation)))


@app.command("warm")
@asks_the_cluster
def show_kept_warm(
    session: ClusterSession,
    watch: Watch = False,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Only of this one (default: all).")
    ] = "",
) -> int:
    """What `darner warm --keep` has left, and on how many of its nodes the images are."""
    return _listed(session, watch, ListCommand(kept.COLUMNS, kept.cells, lambda: (kept.kept(session.access, namespace), [])))


def _listed(session: ClusterSession, watch: bool, listing: ListCommand) -> int:
    before: list[Row] | None = None
    told: list[str] = []
    while True:
        rows, missing = listing.rows()
        for words in missing:
            if words not in told:
                print(printable(f"not known: {words}"), file=sys.stderr)  # noqa: T201
        told = missing
        if rows != before:
            if session.json:
                print_json(rows)
            else:
                print_table(listing.columns, map(listing.cells, rows))
            before = rows
        if not watch:
            return ExitCode.PROBLEM if missing else ExitCode.FINE
        time.sleep(LOOK_SECONDS)


# Nodes.


def _nodes(installation: Installation) -> tuple[list[Row], list[str]]:
    asked = supernode_states(installation)
    out = {item.name: item for item in quarantines(asked.answers.values())}
    rows = []
    for pod in installation.pods("agent"):
        node = node_of(pod)
        seen = [item for state in asked.answers.values() for item in mappings_at(state, "nodes") if item.get("name") == node]
        quarantine = out.get(node)
        known = max(seen, key=lambda item: sum(mapping_at(item, "bytes24h").values()), default={})
        rows.append(
            {
                "name": node,
                "pod": name_of(pod),
                "ready": is_ready(pod),
                "supernodes": len(seen),
                "zone": text_at(known, "zone"),
                "address": text_at(known, "address"),
                "blobs": known.get("blobs"),
                "bytes24h": dict(mapping_at(known, "bytes24h")),
                "quarantine": quarantine and {"reason": quarantine.why, "seconds": quarantine.seconds},
            }
        )
    return sorted(rows, key=lambda row: str(row["name"])), asked.failures


def _node_cells(row: Row) -> list[Cell]:
    quarantine = row["quarantine"]
    source: Cell = "yes"
    if quarantine:
        source = (f"no, for another {span(quarantine['seconds'])}: {quarantine['reason']}", Shade.WARNING)
    ready: Cell = ("ready", Shade.GOOD) if row["ready"] else ("not ready", Shade.BAD)
    received = size(sum(row["bytes24h"].values())) if row["bytes24h"] else "-"
    connected: Cell = str(row["supernodes"]) if row["supernodes"] else ("0", Shade.BAD)
    return [row["name"] or "-", ready, connected, row["zone"] or "-", _count(row["blobs"]), received, source]


# Images.


def _images(installation: Installation) -> tuple[list[Row], list[str]]:
    asked, supernodes = agent_states(installation), supernode_states(installation)
    rows: dict[tuple[str, str], Row] = {}

    def row_of(image: Mapping[str, Any]) -> Row:
        key = text_at(image, "name"), text_at(image, "digest")
        new: Row = {
            "name": key[0],
            "digest": key[1],
            "bytes": image.get("bytes"),
            "nodes": [],
            "lastUsedSecondsAgo": None,
            "isLoaded": False,
            "loadedInto": [],
            "supernodes": len(supernodes.answers),
        }
        return rows.setdefault(key, new)

    for supernode, state in sorted(supernodes.answers.items()):
        for image in mappings_at(state, "loaded"):
            row = row_of(image)
            row["isLoaded"] = True
            row["loadedInto"] += [] if image.get("blobsMissing") else [supernode]
    for node, state in sorted(asked.answers.items()):
        for image in mappings_at(state, "images"):
            row = row_of(image)
            row["nodes"].append(node)
            used = [ago for ago in (row["lastUsedSecondsAgo"], image.get("lastUsedSecondsAgo")) if ago is not None]
            row["lastUsedSecondsAgo"] = min(used, default=None)
    return [row for _, row in sorted(rows.items())], [*asked.failures, *supernodes.failures]


def _image_cells(row: Row) -> list[Cell]:
    used = row["lastUsedSecondsAgo"]
    ago = "-" if used is None else f"{span(used)} ago"
    loaded: Cell = "-"
    if row["isLoaded"]:
        whole, all_of_them = len(row["loadedInto"]), row["supernodes"]
        loaded = "pinned" if whole == all_of_them else (f"whole in {whole} of {all_of_them} supernodes: load it again", Shade.BAD)
    return [row["name"] or "-", row["digest"][:DIGEST_SHOWN], size(row["bytes"]), str(len(row["nodes"])), ago, loaded]


# Swarms.


def _swarms(installation: Installation) -> tuple[list[Row], list[str]]:
    """Of every supernode: a blob belongs to one of them, unless that one was lost."""
    asked = supernode_states(installation)
    return [
        {"supernode": name, **swarm} for name, state in sorted(asked.answers.items()) for swarm in mappings_at(state, "swarms")
    ], asked.failures


def _swarm_cells(row: Row) -> list[Cell]:
    if failed := row.get("failed"):
        progress: Cell = (f"failed: {failed}", Shade.BAD)
    else:
        progress = "-" if row.get("progress") is None else f"{100 * row['progress']:.0f} %"
    digest = str(row.get("digest", ""))[:DIGEST_SHOWN]
    counts = [_count(row.get("takers")), _count(row.get("holders"))]
    return [digest, row.get("image") or "-", size(row.get("size")), *counts, progress, span(row.get("secondsLeft"))]


# Pauses.


def _pauses(installation: Installation) -> tuple[list[Row], list[str]]:
    asked: Asked = supernode_states(installation)
    states = asked.answers.values()
    found = [*left_alone_by_supernodes(states), *quarantines(states)]
    try:
        found = [*pauses(installation, time.time()), *found]
    except CommandError as error:
        asked.failures.append(str(error))
    rows = [
        {"kind": item.kind, "name": item.name, "why": item.why, "seconds": None if item.seconds is None else round(item.seconds)}
        for item in found
    ]
    return rows, asked.failures


def _pause_cells(row: Row) -> list[Cell]:
    return [row["kind"], row["name"], span(row["seconds"]), row["why"]]


def _count(number: int | None) -> str:
    return "-" if number is None else str(number)
