"""An API server for tests and measurements of the webhook: objects with versions, lists, watches, and what goes wrong.

It plays its part on loopback over plain HTTP. The real API server has its turn in the tests of the cluster; this one is late,
refuses and falls silent when it is told to.
"""

from __future__ import annotations

import base64
import json
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jsonpatch
import yaml

COLLECTIONS = (
    "secrets",
    "endpointslices",
    "pods",
    "leases",
    "events",
    "nodes",
    "daemonsets",
    "statefulsets",
    "deployments",
    "namespaces",
    "mutatingwebhookconfigurations",
    "configmaps",
    "cronjobs",
)
METADATA_ONLY = "PartialObjectMetadata"
EVENTS_MAX = 10_000
"""That a watch can go on from, as far back as anybody here ever does."""

Document = dict[str, Any]


class ApiServer(ThreadingHTTPServer):
    """What the webhook asks of an API server, with its status codes. Whoever changes an attribute holds `lock`."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, Document] = {}
        self.events: deque[tuple[int, str, str, Document]] = deque(maxlen=EVENTS_MAX)
        self.lock = threading.Condition(threading.RLock())
        self.version = 0
        self.oldest = 0
        """Watches from before this version are told that it is gone."""
        self.refusal = 0
        self.refusals: dict[str, int] = {}
        """Status by the beginning of `METHOD /path`."""
        self.delay_seconds = 0.0
        self.silent = False
        """Watches are accepted, and nothing comes of them."""
        self.requests: list[str] = []
        self.ended = False

    def put(self, path: str, document: Document) -> Document:
        with self.lock:
            self.version += 1
            metadata = document.setdefault("metadata", {})
            metadata["resourceVersion"] = str(self.version)
            metadata.setdefault("uid", str(uuid.uuid4()))
            metadata.setdefault("name", path.rsplit("/", 1)[1])
            if "/namespaces/" in path:
                metadata.setdefault("namespace", path.split("/namespaces/")[1].split("/")[0])
            kind = "MODIFIED" if path in self.objects else "ADDED"
            # A copy, because a client's next change must not change what a watch is still to be told.
            self.objects[path] = json.loads(json.dumps(document))
            self._happened(kind, path, self.objects[path])
            return document

    def remove(self, path: str) -> None:
        with self.lock:
            self.version += 1
            document = self.objects.pop(path)
            document["metadata"]["resourceVersion"] = str(self.version)
            self._happened("DELETED", path, document)

    def _happened(self, kind: str, path: str, document: Document) -> None:
        self.events.append((self.version, kind, path, document))
        self.lock.notify_all()

    def since(self, version: int) -> list[tuple[int, str, str, Document]]:
        return list(takewhile(lambda item: item[0] > version, reversed(self.events)))[::-1]

    def secret(self, name: str, namespace: str = "darner-system") -> dict[str, bytes]:
        data = self.objects[f"/api/v1/namespaces/{namespace}/secrets/{name}"]["data"]
        return {key: base64.b64decode(text) for key, text in data.items()}

    def asked(self, beginning: str) -> list[str]:
        with self.lock:
            return [request for request in self.requests if request.startswith(beginning)]

    def kubeconfig(self, path: Path) -> Path:
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        users = [{"name": "u", "user": {"token": "t"}}]
        document = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        path.write_text(yaml.safe_dump(document | {"clusters": [cluster], "contexts": [context], "users": users}))
        return path

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has left is no news."""


@contextmanager
def running(server: ApiServer | None = None) -> Iterator[ApiServer]:
    """That server, or a new one."""
    with server or ApiServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            with server.lock:
                server.ended = True
                server.lock.notify_all()
            server.shutdown()
            thread.join()


class Handler(BaseHTTPRequestHandler):
    server: ApiServer
    protocol_version = "HTTP/1.1"

    def answer(self, status: int, document: Document) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status: int) -> None:
        self.answer(status, {"kind": "Status", "status": "Failure", "code": status})

    def do_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        document = json.loads(body) if body else {}
        target = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(target.query).items()}
        api = self.server
        with api.lock:
            request = f"{self.command} {self.path}"
            api.requests.append(request)
            delay = api.delay_seconds
            refusal = api.refusal or next((code for start, code in api.refusals.items() if request.startswith(start)), 0)
        time.sleep(delay)
        if query.get("watch") == "true" and not refusal:
            self.watch(target.path, query)
            return
        with api.lock:
            if refusal:
                self.fail(refusal)
            elif self.command == "GET" and target.path.rsplit("/", 1)[1] in COLLECTIONS:
                self.list(target.path, query)
            else:
                self.single(target.path, document)

    def single(self, path: str, document: Any) -> None:
        api = self.server
        found = api.objects.get(path)
        if self.command == "POST":
            self.create(f"{path}/{document['metadata']['name']}", document)
        elif found is None:
            self.fail(404)
        elif self.command == "GET":
            self.answer(200, found)
        elif self.command == "DELETE":
            api.remove(path)
            self.answer(200, {"kind": "Status", "status": "Success"})
        elif self.command == "PUT" and document["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            self.fail(409)
        elif self.command == "PUT" and document.get("type") != found.get("type"):
            self.fail(422)
        elif self.command == "PUT":
            self.answer(200, api.put(path, document))
        elif self.command == "PATCH" and self.headers["Content-Type"] == "application/json-patch+json":
            try:
                self.answer(200, api.put(path, jsonpatch.apply_patch(found, document)))
            except jsonpatch.JsonPatchTestFailed:
                self.fail(422)
        else:
            self.fail(405)

    def create(self, path: str, document: Any) -> None:
        if path in self.server.objects:
            self.fail(409)
        else:
            self.answer(201, self.server.put(path, document))

    def list(self, path: str, query: dict[str, str]) -> None:
        api = self.server
        found = [(name, document) for name, document in sorted(api.objects.items()) if selected(path, query, name, document)]
        start, limit = int(query.get("continue", "0")), int(query.get("limit", "0")) or len(found) + 1
        metadata = {"resourceVersion": str(api.version)}
        if start + limit < len(found):
            metadata["continue"] = str(start + limit)
        items = [self.shown(document) for _, document in found[start : start + limit]]
        metadata_alone = METADATA_ONLY in self.headers["Accept"]
        # Real API servers say null in place of an empty list of metadata alone.
        self.answer(200, {"kind": "List", "metadata": metadata, "items": None if metadata_alone and not items else items})

    def watch(self, path: str, query: dict[str, str]) -> None:
        api = self.server
        at = int(query["resourceVersion"])
        deadline = time.monotonic() + float(query["timeoutSeconds"])
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        with api.lock:
            gone = at < api.oldest
        if gone:
            self.event("ERROR", {"kind": "Status", "code": 410, "reason": "Expired"})
        while not gone and not api.ended:
            with api.lock:
                while api.silent and not api.ended:
                    api.lock.wait(0.1)
                while not (api.version > at or api.silent or api.ended) and time.monotonic() < deadline:
                    api.lock.wait(0.1)
                if api.silent or api.ended:
                    continue
                happened = api.since(at)
                at = api.version
            for _, kind, name, document in happened:
                if selected(path, query, name, document):
                    self.event(kind, self.shown(document))
            if time.monotonic() >= deadline:
                self.event("BOOKMARK", {"metadata": {"resourceVersion": str(at)}})
                break
        self.wfile.write(b"0\r\n\r\n")

    def event(self, kind: str, document: Document) -> None:
        line = json.dumps({"type": kind, "object": document}).encode() + b"\n"
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def shown(self, document: Document) -> Document:
        """With its metadata alone, if no more was asked for."""
        return {"metadata": document["metadata"]} if METADATA_ONLY in self.headers["Accept"] else document

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_any  # noqa: N815 (the names that BaseHTTPRequestHandler looks for)

    def log_message(self, *_: object) -> None:
        pass


def selected(collection: str, query: dict[str, str], path: str, document: Document) -> bool:
    """Whether the object at a path is in a collection, of one namespace or of all, and fits the selectors."""
    resource = collection.rsplit("/", 1)[1]
    base = collection.split("/namespaces/")[0] if "/namespaces/" in collection else collection.rsplit("/", 1)[0]
    if "/namespaces/" in collection or path.rsplit("/", 1)[0] == collection:
        if path.rsplit("/", 1)[0] != collection:
            return False
    elif not path.startswith(base + "/namespaces/") or path.split("/")[-2] != resource:
        return False
    labels = document["metadata"].get("labels") or {}
    for wanted in filter(None, query.get("labelSelector", "").split(",")):
        name, equals, value = wanted.partition("=")
        if name not in labels or (equals and labels[name] != value):
            return False
    for wanted in filter(None, query.get("fieldSelector", "").split(",")):
        name, _, value = wanted.partition("=")
        if str(document.get(name, "")) != value:
            return False
    return True
