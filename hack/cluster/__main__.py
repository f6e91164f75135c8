"""The command line of a cluster: `make cluster-up` and `make cluster-down`, and what can be done to it in between."""

from __future__ import annotations

import argparse
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from hack.cluster.cluster import Cluster
from hack.cluster.layout import ClusterError
from hack.cluster.node import RUNTIMES
from hack.cluster.origin import NAME, OPEN, PASSWORD, PRIVATE, PRIVATE_TLS, USER
from hack.cluster.programs import DEFAULT_KUBERNETES


def main() -> int:
    arguments = _parser().parse_args()
    signal.signal(signal.SIGTERM, _interrupted)
    cluster = Cluster(arguments.cluster)
    try:
        if arguments.verb == "exec":
            command = cluster.command(arguments.host, arguments.command)
            os.execvp(command[0], command)
        with cluster.locked() as free:
            if not free:
                raise ClusterError(f"another process is at work on {cluster.layout.name}; --cluster takes another number")
            _do(cluster, arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _do(cluster: Cluster, arguments: argparse.Namespace) -> None:
    host = getattr(arguments, "host", "")
    if arguments.verb == "up":
        _up(cluster, arguments)
    elif arguments.verb == "down":
        cluster.down()
    elif arguments.verb == "add":
        print(cluster.add(arguments.containerd))
    elif arguments.verb == "remove":
        cluster.remove(host)
    elif arguments.verb == "load":
        cluster.load(arguments.archive)
    elif arguments.verb == "shape":
        cluster.shape(host, int(arguments.mbit * 1e6))
    else:
        if arguments.verb in ("kill", "reboot"):
            cluster.kill(host)
        if arguments.verb in ("boot", "reboot"):
            cluster.boot(host)


def _up(cluster: Cluster, arguments: argparse.Namespace) -> None:
    begin = time.monotonic()
    runtimes = list(itertools.islice(itertools.cycle(arguments.containerd.split(",")), arguments.nodes))
    try:
        cluster.up(runtimes, arguments.kubernetes, int(arguments.mbit * 1e6))
        for archive in arguments.load:
            cluster.load(archive)
    except BaseException:
        cluster.down()
        raise
    origin = cluster.layout.origin.address
    print(f"Kubernetes {arguments.kubernetes}, containerd {', '.join(runtimes)}: Ready after {time.monotonic() - begin:.0f} s")
    print(f"push images to {origin}:{OPEN}; the same are at {NAME} over TLS, and for {USER}:{PASSWORD} at")
    print(f"{origin}:{PRIVATE} and {NAME}:{PRIVATE_TLS}")
    print(f"\nexport KUBECONFIG={cluster.layout.kubeconfig} PATH={cluster.programs.kubernetes}:$PATH")


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    parser.add_argument("--cluster", type=int, default=0, metavar="NUMBER", help="several can run at once; default 0")
    verbs = parser.add_subparsers(dest="verb", required=True)
    up = verbs.add_parser("up", help="make it, after removing what was there")
    up.add_argument("--nodes", type=int, default=3)
    up.add_argument("--kubernetes", default=DEFAULT_KUBERNETES, metavar="VERSION")
    up.add_argument("--containerd", default="1.6,2", help=f"of {', '.join(RUNTIMES)}; a list goes round the nodes")
    up.add_argument("--mbit", type=float, default=0, help="rate of each link of a node and of the origin; 0: unshaped")
    up.add_argument("--load", type=Path, action="append", default=[], metavar="ARCHIVE", help="an image for every node")
    verbs.add_parser("down", help="remove it")
    verbs.add_parser("add", help="one more node").add_argument("containerd", choices=RUNTIMES)
    verbs.add_parser("load", help="an image for every node").add_argument("archive", type=Path)
    verbs.add_parser("remove", help="a node leaves for good").add_argument("host")
    for verb, meaning in (("kill", "a host loses its power"), ("boot", "and has it again"), ("reboot", "both")):
        verbs.add_parser(verb, help=meaning).add_argument("host")
    shape = verbs.add_parser("shape", help="give a host's link a rate")
    shape.add_argument("host")
    shape.add_argument("mbit", type=float, help="0: as fast as it is")
    execute = verbs.add_parser("exec", help="run a command on a host: control-plane, origin, n0, n1, ...")
    execute.add_argument("host")
    execute.add_argument("command", nargs=argparse.REMAINDER)
    return parser


if __name__ == "__main__":
    sys.exit(main())
