"""`darner dashboard`: the supernode's page on this machine, for as long as the command runs.

Each connection of a browser goes through a port-forward of its own, with the rights of the kubeconfig. It listens on loopback
alone.
"""

from __future__ import annotations

import socket
import sys
import threading
import webbrowser
from typing import Annotated

import typer

from cli.errors import CommandError, ExitCode, NotThere
from cli.output import printable
from cli.pods import name_of
from cli.release import Installation
from cli.session import Session
from cli.streams import Forward

HOST = "127.0.0.1"
CHUNK_BYTES = 1 << 16
CONNECTIONS_MAX = 32


def dashboard(
    session: Session,
    port: Annotated[int, typer.Option(min=0, max=65535, help="On this machine; 0: any that is free.")] = 65080,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser, where there is one.")] = True,
) -> int:
    """Show the supernode's page in a browser, until Ctrl-C."""
    installation = session.installation
    supernode = _ready(installation)
    try:
        listener = socket.create_server((HOST, port))
    except OSError as error:
        raise CommandError(f"port {port} cannot be taken on {HOST}: {error.strerror}; choose another one with --port") from None
    with listener:
        url = f"http://{HOST}:{listener.getsockname()[1]}/"
        print(f"{url} shows supernode {supernode}; Ctrl-C ends it", flush=True)  # noqa: T201
        if open_browser and sys.stdout.isatty():
            webbrowser.open(url)
        slots = threading.BoundedSemaphore(CONNECTIONS_MAX)
        while True:
            slots.acquire()
            connection, _ = listener.accept()
            work = (installation, supernode, connection, slots)
            threading.Thread(target=_carry, args=work, daemon=True).start()
    return ExitCode.FINE


def _ready(installation: Installation) -> str:
    ready = installation.ready_pods("supernode")
    if not ready:
        raise NotThere("no supernode is ready, and it is the one that has the page; `darner status` says why")
    return name_of(ready[0])


def _carry(installation: Installation, pod: str, connection: socket.socket, slots: threading.BoundedSemaphore) -> None:
    """One connection of the browser, in a thread of its own."""
    try:
        with connection, _forwarded(installation, pod) as forward:
            back = threading.Thread(target=_copy, args=(forward.socket, connection), daemon=True)
            back.start()
            _copy(connection, forward.socket)
            back.join()
    except CommandError as error:
        print(printable(f"darner dashboard: {error}"), file=sys.stderr)  # noqa: T201
    except OSError:
        pass  # the browser has left
    finally:
        slots.release()


def _forwarded(installation: Installation, pod: str) -> Forward:
    return installation.access.forward(installation.namespace, pod, installation.http_port("supernode"))


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(CHUNK_BYTES):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # either side has left; both are closed by whoever opened them
