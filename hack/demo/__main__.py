"""The story of the demo, in order. Ends with the line that says what the origin sent, or with one that says what went wrong."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import FrameType

from agent.values.reference import LOCAL_REGISTRY, Reference
from hack.demo.admission import AdmissionError, admit, pod_of
from hack.demo.cluster import REGISTRY, Cluster, DemoError, Node, blob_bytes_sent, check_addresses, received_bytes
from hack.demo.puller import Pulled, PullError, pull
from hack.demo.screen import MIB, Row, Screen
from hack.origin.image import Image, size_of
from hack.origin.pythonimage import python_image

REPOSITORY, TAG = "demo/python", "latest"
NODES = [Node(number) for number in (1, 2, 3, 4)]
VICTIM = NODES[1]
LATECOMER = Node(5)
ENDING = (signal.SIGINT, signal.SIGTERM)
STORE_SECONDS = 10
ORIGIN_SHARE_MAX = 1.02
"""More than this of the image means that the origin was asked twice for something."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="Pull an image through a small swarm on this machine.")
    parser.add_argument(
        "--flip-a-byte", action="store_true", help="the origin sends a wrong byte: the demo must fail and say why"
    )
    arguments = parser.parse_args()
    for number in ENDING:
        signal.signal(number, interrupted)
    try:
        print(run(Screen(), arguments.flip_a_byte))
    except KeyboardInterrupt:
        print("demo interrupted", file=sys.stderr)
        return 130
    except DemoError as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    return 0


def interrupted(_number: int, _frame: FrameType | None) -> None:
    """Once is enough: what ends the processes must not be interrupted itself."""
    for number in ENDING:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(screen: Screen, flip_a_byte: bool) -> str:
    """The last line, when every process has ended. Logs are kept only when something went wrong."""
    check_addresses([*NODES, LATECOMER])
    screen.say("making an image from this Python installation (once, then it is kept)")
    image = python_image()
    with Cluster() as cluster:
        try:
            line = tell(cluster, screen, image, flip_a_byte)
        except (DemoError, AdmissionError) as error:
            cluster.keep_logs = True
            raise DemoError(f"{error}; the logs are in {cluster.folder}") from None
    return line


def tell(cluster: Cluster, screen: Screen, image: Image, flip_a_byte: bool) -> str:
    """Everything from the first process to the last line."""
    began = time.monotonic()
    name = cluster.start_origin(REPOSITORY, TAG, flip_a_byte)
    registry = Reference.parse(name).registry
    cluster.start_supernode(registry)
    webhook, authority = cluster.start_webhook()
    for node in NODES:
        cluster.start_node(node, registry)
    screen.say(f"started an origin, a supernode, a webhook and {len(NODES)} nodes in {time.monotonic() - began:.1f} s")

    admitted = admit(pod_of(name), webhook, authority)["spec"]["containers"][0]["image"]
    screen.say(f"a pod asks for {name}, the webhook rewrites that to {admitted}")
    local = Reference.parse(admitted)
    if local.registry != LOCAL_REGISTRY:
        raise DemoError(f"{admitted} is not at {LOCAL_REGISTRY}")

    screen.say(f"pulling {image.size / MIB:.0f} MiB in {len(image.layers)} layers on {len(NODES)} nodes at once")
    pulled = pull_on(cluster, NODES, local, image, screen)
    wait_until_held(cluster, NODES, image)
    rows = [Row(node.name, one.seconds, received_bytes(node)) for node, one in zip(NODES, pulled, strict=True)]
    sent = blob_bytes_sent(registry)

    screen.say(f"killing the origin and {VICTIM.name}; {LATECOMER.name} joins and pulls by tag")
    cluster.kill("origin")
    cluster.kill(VICTIM.name)
    cluster.start_node(LATECOMER, registry)
    pulled += pull_on(cluster, [LATECOMER], local, image, screen)
    rows.append(Row(LATECOMER.name, pulled[-1].seconds, received_bytes(LATECOMER)))

    wait_until_held(cluster, everyone := [*NODES, LATECOMER], image)
    screen.table(rows)
    share = sent / image.size
    if share > ORIGIN_SHARE_MAX:
        raise DemoError(f"the origin sent {share:.2f}x of the image; it should be asked once for each blob")
    return f"origin sent {share:.2f}x of the image; {len(everyone)} nodes hold it; every digest verified"


def pull_on(cluster: Cluster, nodes: list[Node], local: Reference, image: Image, screen: Screen) -> list[Pulled]:
    """Pulls on all these nodes at once. Raises DemoError for the first that does not end with the right image."""
    with screen.bars([node.name for node in nodes], image.size) as advance:

        def pull_one(node: Node) -> Pulled:
            # A pod's name says 127.0.0.1, each node's own; on this machine the nodes have different ones.
            pulled = pull(f"{node.host}:{REGISTRY}", local, lambda count: advance(node.name, count))
            if (pulled.digest, pulled.size) != (image.digest, image.size):
                raise PullError(f"{pulled.digest} is not the image that the origin has, {image.digest}")
            return pulled

        pool = ThreadPoolExecutor(len(nodes))
        pulls = {pool.submit(pull_one, node): node for node in nodes}
        try:
            for done in as_completed(pulls):
                node = pulls[done]
                pulled = done.result()
                screen.say(f"  {node.name} has it, every digest verified, after {pulled.seconds:.1f} s")
        except PullError as error:
            complaint = cluster.complaint_of(node.name)
            raise DemoError(f"{node.name}: {error}" + (f"; its agent says: {complaint}" if complaint else "")) from None
        finally:
            # The others end by themselves when the agents that they pull from do.
            pool.shutdown(wait=False, cancel_futures=True)
    return [done.result() for done in pulls]


def wait_until_held(cluster: Cluster, nodes: list[Node], image: Image) -> None:
    """A pull ends with its last byte; the blob's file is flushed and renamed a moment later."""
    deadline = time.monotonic() + STORE_SECONDS
    while lacking := [node.name for node in nodes if not holds(cluster.store_of(node.name), image)]:
        if time.monotonic() > deadline:
            raise DemoError(f"{', '.join(lacking)} pulled the image and does not hold it after {STORE_SECONDS} s")
        time.sleep(0.05)


def holds(store: Path, image: Image) -> bool:
    """Whether every blob of the image is whole in this store, whatever became of the store's agent."""
    files = {store / "blobs" / "sha256" / digest.removeprefix("sha256:"): content for digest, content in image.blobs.items()}
    return all(file.is_file() and file.stat().st_size == size_of(content) for file, content in files.items())


if __name__ == "__main__":
    sys.exit(main())
