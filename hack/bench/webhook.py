"""How fast the webhook is: the real process on one core, asked over HTTPS as API servers ask, with all on that the chart has on.

Beside the questions it follows what a busy cluster tells it: the rewritten pods that come and go at the same rate. What is asked
of the API server is answered by hack/lab/apiserver.py, on the other core with the load (hack/bench/reviews.py).
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from agent.config import address
from agent.values.reference import to_local
from hack.bench.reviews import NAMESPACE, PULL_SECRET, REGISTRIES, Target, as_fast_as_it_goes, at_a_rate, pod
from hack.lab import Process, wait_until
from hack.lab.apiserver import ApiServer, running
from webhook.pods import ORIGINAL_IMAGES, REWRITTEN

RATE = 200.0
SECONDS = 20.0
AT_ONCE = 8
"""Questions under way when throughput is measured."""
NODES, NODES_PER_SLICE = 1000, 100
RELEASE = "darner-system"
FOLLOWED_MAX = 500
"""Rewritten pods that are there at a time."""
FOLLOW_SECONDS = 0.02


@dataclass(frozen=True)
class WebhookFigures:
    reviews_per_second: float
    """On one core, without a pause."""
    p50_ms: float
    p99_ms: float
    """At RATE questions a second that come at random, each from when it was due."""
    worst_ms: float
    cpu_ms: float
    """Processor time of the webhook per review at that rate, with all that it does beside."""


def measure(seconds: float = SECONDS) -> WebhookFigures:
    """One run; throughput takes a quarter of the time in addition."""
    with webhook() as (process, target, api), following(api), ProcessPoolExecutor(1, get_context("spawn")) as load:

        def run(what: Callable[..., Any], *arguments: float) -> Any:
            return load.submit(_on_core, _cores()[-1], what, target, *arguments).result()

        run(at_a_rate, 2.0, RATE, 0)  # whatever is made once has been made: the pull secret, and the caches of its modules
        before = _cpu_seconds(process.pid)
        times = sorted(run(at_a_rate, seconds, RATE, 1))
        spent = _cpu_seconds(process.pid) - before
        throughput = run(as_fast_as_it_goes, seconds / 4, AT_ONCE, 2)
    cuts = statistics.quantiles(times, n=100)
    figures = (throughput, cuts[49] * 1e3, cuts[98] * 1e3, times[-1] * 1e3, spent / len(times) * 1e3)
    return WebhookFigures(*(round(figure, 3) for figure in figures))


@contextmanager
def webhook() -> Iterator[tuple[Process, Target, ApiServer]]:
    """As the chart starts it, on the first core; with agents that are ready on a thousand nodes, and a pull secret."""
    with tempfile.TemporaryDirectory(prefix="darner-bench-") as name, running() as api:
        directory = Path(name)
        _fill(api)
        certificates = directory / "certificates"
        flags = {
            "--listen": "127.0.0.1:0",
            "--http-listen": "127.0.0.1:0",
            "--certificate-dir": str(certificates),
            "--namespace": RELEASE,
            "--agent-service": f"{RELEASE}/darner-agent",
            "--pull-secrets": "true",
            "--lease": f"{RELEASE}/darner-webhook",
        }
        argv = ["taskset", "--cpu-list", str(_cores()[0]), sys.executable, "-m", "webhook"]
        argv += [word for pair in flags.items() for word in pair]
        process = Process("webhook", argv, directory, {"KUBECONFIG": str(api.kubeconfig(directory / "kubeconfig"))})
        try:
            process.wait_until(lambda: "ready" in process.printed())
            where = address(process.printed().split("https://")[1].split("/")[0])
            # The gates close while it is not known which agents are ready.
            wait_until(lambda: "watch=true" in " ".join(api.asked("GET /apis/discovery")))
            yield process, Target(where, str(certificates / "ca.crt")), api
        finally:
            process.kill()


@contextmanager
def following(api: ApiServer) -> Iterator[None]:
    """Rewritten pods come, change and go in the API server, as many a second as are admitted."""
    stop, seed = threading.Event(), random.Random(3)

    def work() -> None:
        begun, made = time.monotonic(), 0
        while not stop.wait(FOLLOW_SECONDS):
            # A machine that cannot make so many is behind for ever, and still ends when it is told to.
            while made < (time.monotonic() - begun) * RATE and not stop.is_set():
                _live(api, made, seed)
                made += 1

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _live(api: ApiServer, number: int, seed: random.Random) -> None:
    """One pod is made, bound to a node and started, and an older one goes."""
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/web-"
    document = pod(seed, f"web-{number}")
    spec, noted, statuses = document["spec"], {}, {}
    for kind, field in (("initContainers", "initContainerStatuses"), ("containers", "containerStatuses")):
        noted[kind] = {item["name"]: item["image"] for item in spec[kind]}
        started = {"running": {"startedAt": "2026-01-01T00:00:01Z"}}
        statuses[field] = [{"name": item["name"], "imageID": "sha256:1", "state": started} for item in spec[kind]]
        for item in spec[kind]:
            item["image"] = to_local(item["image"])
    document["metadata"] |= {"labels": {REWRITTEN: "true"}, "name": f"web-{number}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    document["metadata"]["annotations"][ORIGINAL_IMAGES] = json.dumps(noted)
    api.put(path + str(number), document)
    spec["nodeName"] = f"node-{number % NODES}"
    api.put(path + str(number), document)
    document["status"] |= {"phase": "Running", **statuses}
    api.put(path + str(number), document)
    if number >= FOLLOWED_MAX:
        api.remove(path + str(number - FOLLOWED_MAX))


def _fill(api: ApiServer) -> None:
    slices = f"/apis/discovery.k8s.io/v1/namespaces/{RELEASE}/endpointslices/darner-agent-"
    for first in range(0, NODES, NODES_PER_SLICE):
        endpoints = [
            {"nodeName": f"node-{number}", "conditions": {"ready": True}} for number in range(first, first + NODES_PER_SLICE)
        ]
        api.put(
            slices + str(first), {"metadata": {"labels": {"kubernetes.io/service-name": "darner-agent"}}, "endpoints": endpoints}
        )
    auths = {registry: {"auth": "c2hvcDpzaG9w"} for registry in REGISTRIES}
    config = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    secret = {"kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}}
    api.put(f"/api/v1/namespaces/{NAMESPACE}/secrets/{PULL_SECRET}", secret)


def _on_core(core: int, what: Callable[..., Any], *arguments: Any) -> Any:
    os.sched_setaffinity(0, {core})
    return what(*arguments)


def _cores() -> list[int]:
    return sorted(os.sched_getaffinity(0))


def _cpu_seconds(pid: int) -> float:
    """User and system time of a process (proc(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hack.bench.webhook", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of questions at a fixed rate (default: %(default)g)")
    parser.add_argument("--output", choices=("text", "json"), default="text")
    options = parser.parse_args()
    figures = asdict(measure(options.seconds))
    lines = [f"{name:>20} {value:g}" for name, value in figures.items()]
    print(json.dumps(figures) if options.output == "json" else "\n".join(lines))


if __name__ == "__main__":
    main()
