"""Which files of the agent one cold GET of a blob passes through: `python -m hack.way`.

Two agents, a supernode and an origin run on this machine, each in a process of its own. One of the agents has the blob, which the
other is asked for. From the request to its last byte, each
call of a function of the agent is noted with the file that it is in: in the thread of the client's connection, in the threads of
the download and in those of the channels. What the agent does at its own pace, whoever pulls, is left out.
"""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType

from hack.origin import Image, Origin
from hack.ports import free_port

TREE = Path(__file__).resolve().parents[1]
REPOSITORY = "team/app"
LAYER_BYTES = 3 << 20
READY_SECONDS_MAX = 60.0
AT_THEIR_OWN_PACE = ("control", "garbage collector", "scrubber")
"""The threads of an agent that do the same when nobody pulls."""


def main() -> None:
    if sys.argv[1:2] == ["agent"]:
        traced_agent(sys.argv[2:])
    files = next(files_of_cold_gets(1))
    print("\n".join(files))
    print(f"{len(files)} files")


def files_of_cold_gets(count: int) -> Iterator[list[str]]:
    """So many blobs, one after the other, and the files that each of them has passed through."""
    with tempfile.TemporaryDirectory() as directory, Origin() as origin:
        image = Image.of([os.urandom(LAYER_BYTES) for _ in range(count)])
        origin.push(REPOSITORY, "1", image)
        yield from files_called(Path(directory), origin.address, image)


def files_called(directory: Path, registry: str, image: Image) -> Iterator[list[str]]:
    pieces, channel, state = (f"127.0.0.1:{free_port()}" for _ in range(3))
    common = ["--insecure-registries", registry]
    supernode = ["-m", "supernode", "--node-name", "supernode", "--store", str(directory / "supernode"), "--piece-listen", pieces]
    supernode += ["--piece-address", pieces, "--http-listen", state, "--channel-listen", channel, *common]
    common += ["--supernodes", channel]
    prefix = f"/v2/{registry.replace(':', '_')}/{REPOSITORY}"
    (holder, first), (agent, endpoint) = (agent_of(directory, name, common) for name in ("holder", "node"))
    with started(supernode), started(["-m", "agent", *holder]), started(["-m", "hack.way", "agent", *agent]) as process:
        assert process.stdout is not None
        for path in ("manifests/1", *(f"blobs/{layer}" for layer in image.layers)):
            get(first, f"{prefix}/{path}")
        get(endpoint, f"{prefix}/manifests/1")
        for layer in image.layers:
            process.send_signal(signal.SIGUSR1)
            process.stdout.readline()  # two signals that come too near to each other are one
            get(endpoint, f"{prefix}/blobs/{layer}")
            process.send_signal(signal.SIGUSR1)
            yield process.stdout.readline().split()


def agent_of(directory: Path, name: str, common: list[str]) -> tuple[list[str], str]:
    """The arguments of an agent, and where its registry endpoint is."""
    upload, endpoint, health = (f"127.0.0.1:{free_port()}" for _ in range(3))
    argv = ["--node-name", name, "--store", str(directory / name), "--piece-listen", upload, "--piece-address", upload]
    return [*argv, "--http-listen", health, "--registry-listen", endpoint, *common], endpoint


def get(where: str, path: str) -> bytes:
    with closing(http.client.HTTPConnection(where, timeout=READY_SECONDS_MAX)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            body = answer.read()
    if answer.status != 200:
        raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
    return body


@contextmanager
def started(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that has printed the line which says that it is ready."""
    with subprocess.Popen([sys.executable, *argv], cwd=TREE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            if not process.stdout.readline():
                raise SystemExit(f"{' '.join(argv)} did not start")
            yield process
        finally:
            process.terminate()
            process.wait(READY_SECONDS_MAX)


def traced_agent(argv: list[str]) -> None:
    """The agent, with each call noted between the first SIGUSR1 and the second, which prints the files."""
    from agent.__main__ import main as agent

    seen: set[str] = set()
    noting = threading.Event()

    def note(frame: FrameType, event: str, _: object) -> None:
        name = frame.f_code.co_filename
        if event != "call" or not noting.is_set() or not name.startswith(f"{TREE}/agent/"):
            return
        if threading.current_thread().name not in AT_THEIR_OWN_PACE:
            seen.add(name)

    def toggle(*_: object) -> None:
        if noting.is_set():
            noting.clear()
            print(*sorted(name.removeprefix(f"{TREE}/") for name in seen.copy()), flush=True)  # a thread may be adding one
        else:
            seen.clear()
            noting.set()
            print("noting", flush=True)

    signal.signal(signal.SIGUSR1, toggle)
    threading.setprofile(note)
    sys.exit(agent(argv))


if __name__ == "__main__":
    main()
