"""The Unix socket in the store's directory, by which images come: a command in the supernode's own container leads there.

Nobody but processes of this container comes to the socket, so whoever may `exec` into the pod may load, by Kubernetes' RBAC. What
arrives is believed as little as what arrives from anywhere: a blob counts when all of it has its digest. One image at a time.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from io import BufferedReader
from pathlib import Path

import msgspec

from agent.storage.store import Store
from agent.swarm.piece_client import fill
from agent.values.errors import DarnerError, RequestError, SourceError, StoreError
from agent.values.pieces import Layout
from supernode.loaded.conversation import LINE_BYTES_MAX, LoadAnswer, LoadImage, UnloadImage, read_request, reference_of
from supernode.loaded.images import LoadedImage, LoadedImages
from supernode.loaded.place import SOCKET, socket_path

log = logging.getLogger(__name__)

CONNECTIONS_MAX = 8
SILENCE_SECONDS_MAX = 120.0
"""A client that sends nothing for so long has left."""
STOP_SECONDS_MAX = 5.0
ACCEPT_RETRY_SECONDS = 0.5


class LoadReceiver:
    """`start` and `stop` are called by one thread."""

    def __init__(self, root: Path, store: Store, images: LoadedImages) -> None:
        """`root` is the store's directory, which is closed to others."""
        self._root, self._store, self._images = root, store, images
        self._loading = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._stopping = threading.Event()
        self._listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._thread = threading.Thread(target=self._accept, name="load receiver", daemon=True)

    def start(self) -> None:
        """On a file system without sockets nothing can be loaded; all else goes on."""
        try:
            (self._root / SOCKET).unlink(missing_ok=True)
            with socket_path(self._root) as path:
                self._listening.bind(path)
            self._listening.listen(CONNECTIONS_MAX)
        except OSError as error:
            log.warning("no image can be loaded here, for %s takes no socket: %s", self._root, error)
            return
        self._thread.start()

    def stop(self) -> None:
        """What is being loaded is interrupted."""
        self._stopping.set()
        for sock in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS_MAX)
        self._listening.close()
        with contextlib.suppress(OSError):
            (self._root / SOCKET).unlink(missing_ok=True)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError as error:
                if self._stopping.wait(ACCEPT_RETRY_SECONDS):
                    return  # it was shut down
                log.warning("whoever wants to load an image waits: %s", error)  # out of descriptors: some will be closed
                continue
            if len(self._connections) >= CONNECTIONS_MAX:
                connection.close()
                continue
            self._connections.add(connection)
            try:
                threading.Thread(target=self._serve, args=(connection,), name="load", daemon=True).start()
            except RuntimeError as error:
                log.warning("an image cannot be loaded now: %s", error)  # no thread is left
                self._connections.discard(connection)
                connection.close()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(SILENCE_SECONDS_MAX)
        try:
            with connection, connection.makefile("rb") as reader:
                said = LoadAnswer()
                while not said.error and (line := reader.readline(LINE_BYTES_MAX)):
                    said = self._answer(line, reader, connection)
                    _say(connection, said)
        except OSError as error:
            log.info("a load ended: %s", error)
        finally:
            self._connections.discard(connection)

    def _answer(self, line: bytes, reader: BufferedReader, connection: socket.socket) -> LoadAnswer:
        try:
            asked = read_request(line)
            if isinstance(asked, UnloadImage):
                was_loaded = self._images.unload(str(reference_of(asked.name)))
                return LoadAnswer() if was_loaded else LoadAnswer(missing=[asked.name])
            self._load(asked, reader, connection)
        except DarnerError as error:
            log.warning("nothing is loaded: %s", error)
            return LoadAnswer(error=str(error))
        return LoadAnswer()

    def _load(self, load: LoadImage, reader: BufferedReader, connection: socket.socket) -> None:
        image = LoadedImage(load)
        if not self._loading.acquire(blocking=False):
            raise RequestError(409, "TOOMANYREQUESTS", "another image is being loaded here; try again when that is done")

        def receive(image: LoadedImage) -> None:
            missing = self._images.missing(image)
            _say(connection, LoadAnswer(missing=list(missing)))
            for digest, size in missing.items():
                self._receive(image, digest, size, reader)
            for digest in image.blobs:
                if blob := self._store.blob(digest):
                    registry, repository = image.repository
                    blob.provenance.add(registry, f"{registry}/{repository}")

        try:
            self._images.load(image, receive)
        finally:
            self._loading.release()

    def _receive(self, image: LoadedImage, digest: str, size: int, reader: BufferedReader) -> None:
        """One blob, which is in the store afterwards. Raises DarnerError."""
        blob = self._store.receive(digest, Layout.of(size), public=True)
        blob.provenance.begin(*image.repository, is_empty=not blob.held)
        try:
            for piece in range(blob.layout.count):
                claim = blob.claim(piece)
                received = fill(blob, piece, claim, reader.readinto)
                blob.add(piece, received, checked=False, claim=claim)
            blob.finish_if_empty()
        except SourceError:
            blob.fail(StoreError(f"the load of {digest} was interrupted"))
        except OSError as error:
            is_client = isinstance(error, TimeoutError | ConnectionError)
            words = "was interrupted" if is_client else f"cannot be written: {error.strerror}"
            blob.fail(StoreError(f"the load of {digest} {words}"))
        if blob.error:
            raise blob.error.again()


def _say(connection: socket.socket, said: LoadAnswer) -> None:
    connection.sendall(msgspec.json.encode(said) + b"\n")
