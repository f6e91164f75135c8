"""`darner quarantine` and `darner release`: whether others take pieces from a node.

Every supernode is told, by a command in its own pod: whoever may exec there may do this, and nobody else. A node that is no
source still pulls. What supernodes know is soft: one that starts anew has not heard of it.
"""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

import typer

from cli.errors import CommandError, ExitCode, NotThere
from cli.output import print_json, print_line
from cli.pods import name_of, node_of
from cli.release import Installation
from cli.session import Session, seconds
from cli.state import local

Node = Annotated[str, typer.Argument(metavar="NODE", help="As `kubectl get nodes` names it.")]


def quarantine(
    session: Session,
    node: Node,
    for_time: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 1h, 2d; 30d at most.")],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for others who look.")] = "by hand",
) -> int:
    """Let nobody take pieces from a node for a while. It goes on pulling; `darner release NODE` ends it."""
    query = {"node": node, "seconds": f"{seconds(for_time, '--for'):.0f}", "reason": reason}
    return _tell_supernodes(session, node, f"/api/v1/quarantine?{urlencode(query)}")


def release_node(session: Session, node: Node) -> int:
    """Let others take pieces from a node again, whoever put it into quarantine."""
    return _tell_supernodes(session, node, f"/api/v1/release?{urlencode({'node': node})}")


def _tell_supernodes(session: Session, node: str, path: str) -> int:
    installation = session.installation
    nodes = sorted(node_of(pod) for pod in installation.pods("agent"))
    if node not in nodes:
        raise NotThere(f"no agent runs on a node called {node}; there are {', '.join(filter(None, nodes)) or 'none'}")
    told = [_told(installation, name_of(pod), path) for pod in installation.pods("supernode")]
    if not told:
        raise NotThere("this release has no supernode, so no node takes pieces from another")
    if session.json:
        print_json([{"supernode": name, "done": done, "said": said} for name, done, said in told])
    else:
        for name, _, said in told:
            print_line(f"{name}: {said}")
    return ExitCode.FINE if all(done for _, done, _ in told) else ExitCode.PROBLEM


def _told(installation: Installation, supernode: str, path: str) -> tuple[str, bool, str]:
    try:
        return supernode, True, local(installation, supernode, "POST", path).strip()
    except CommandError as error:
        if error.exit_code != ExitCode.PROBLEM:
            raise
        return supernode, False, str(error)
