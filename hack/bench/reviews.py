"""Questions as an API server asks them, and an API server's way of asking: HTTPS connections that are kept, as many as it takes.

One thread that costs little, so that one core of two is enough for it. A question's time begins when it was due, not when there
was a connection for it: a webhook that is late is late for all who wait behind.
"""

from __future__ import annotations

import base64
import json
import random
import re
import selectors
import socket
import ssl
import time
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from agent.values.address import Address

NAMESPACE, PULL_SECRET = "shop", "registry"
REGISTRIES = ("quay.io", "ghcr.io", "docker.io", "registry.example.com")
CONTAINERS = ("migrate", "web", "api", "metrics")
"""The first is an init container."""
OWNERS = 20
"""Few: pods of each have to run, because an owner whose rewritten pods never come to exist is left alone."""
CONNECTIONS_KEPT = 8
CONNECTIONS_MAX = 500
"""Fewer than the webhook takes: one that falls so far behind has no figure."""
RECEIVE_BYTES = 1 << 16
SILENCE_SECONDS_MAX = 10.0


class Target(NamedTuple):
    address: Address
    authorities: str
    """Path of the certificates to trust, in PEM."""


def pod(seed: random.Random, name: str) -> dict[str, Any]:
    """Of a Deployment: an init container and three containers, with all that controllers and clients add; about 8 KB."""
    containers = [_container(kind, seed) for kind in CONTAINERS]
    which = seed.randrange(OWNERS)
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"web-{which}", "uid": str(uuid.UUID(int=which))}
    token = "kube-api-access-x7v2q"
    spec = {
        "volumes": [{"name": token, "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token"}}]}}],
        "initContainers": containers[:1],
        "containers": containers[1:],
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "serviceAccountName": "shop",
        "serviceAccount": "shop",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": [{"name": PULL_SECRET}],
        "schedulerName": "default-scheduler",
        "tolerations": [
            {"key": f"node.kubernetes.io/{why}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            for why in ("not-ready", "unreachable")
        ],
        "priority": 0,
        "enableServiceLinks": True,
        "preemptionPolicy": "PreemptLowerPriority",
    }
    managed = {
        "manager": "kube-controller-manager",
        "operation": "Update",
        "apiVersion": "v1",
        "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1",
        "fieldsV1": {"f:spec": {f"k:{json.dumps({'name': item['name']})}": _fields(item) for item in containers}},
    }
    metadata = {
        "generateName": f"{name}-",
        "namespace": NAMESPACE,
        "labels": {"app.kubernetes.io/name": name, "pod-template-hash": f"{seed.getrandbits(32):x}"},
        "annotations": {"prometheus.io/scrape": "true", "prometheus.io/port": "8080"},
        "ownerReferences": [owner | {"controller": True, "blockOwnerDeletion": True}],
        "managedFields": [managed],
    }
    return {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": metadata,
        "spec": spec,
        "status": {"phase": "Pending", "qosClass": "Burstable"},
    }


def review(seed: random.Random) -> dict[str, Any]:
    name = f"web-{seed.getrandbits(32):x}"
    version = {"group": "", "version": "v1"}
    request = {
        "uid": str(uuid.UUID(int=seed.getrandbits(128))),
        "kind": version | {"kind": "Pod"},
        "resource": version | {"resource": "pods"},
        "requestKind": version | {"kind": "Pod"},
        "requestResource": version | {"resource": "pods"},
        "namespace": NAMESPACE,
        "operation": "CREATE",
        "userInfo": {
            "username": "system:serviceaccount:kube-system:replicaset-controller",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
        },
        "object": pod(seed, name),
        "oldObject": None,
        "dryRun": False,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    return {"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": request}


def _container(name: str, seed: random.Random) -> dict[str, Any]:
    return {
        "name": name,
        "image": f"{seed.choice(REGISTRIES)}/shop/{name}:{seed.randrange(1000)}",
        "args": ["--listen=:8080", "--log-level=info", f"--shard={seed.randrange(100)}"],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"SETTING_{number}", "value": f"{seed.getrandbits(64):x}"} for number in range(4)],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "128Mi"}},
        "volumeMounts": [
            {"name": "kube-api-access-x7v2q", "readOnly": True, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}
        ],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "http", "scheme": "HTTP"},
            "timeoutSeconds": 1,
            "periodSeconds": 10,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }


def _fields(item: Any) -> dict[str, Any]:
    """What managedFields say of an object (structured-merge-diff, FieldsV1)."""
    if not isinstance(item, dict):
        return {}
    return {".": {}, **{f"f:{name}": _fields(value) for name, value in item.items()}}


class Client:
    """Asks, and hears the answers; whoever drives it decides when."""

    def __init__(self, target: Target, seed: int) -> None:
        self._target = target
        self._context = ssl.create_default_context(cafile=target.authorities)
        # Waits with a precision of microseconds, where epoll's is a millisecond.
        self._selector = selectors.SelectSelector()
        self._idle: list[ssl.SSLSocket] = []
        self._begun: dict[ssl.SSLSocket, float] = {}
        self._heard: dict[ssl.SSLSocket, bytes] = {}
        chosen = random.Random(seed)
        self._questions = [self._request(json.dumps(review(chosen)).encode()) for _ in range(500)]
        self._next = 0
        for _ in range(CONNECTIONS_KEPT):
            self._idle.append(self._connected())

    def ask(self, due: float) -> None:
        connection = self._idle.pop() if self._idle else self._connected()
        self._begun[connection] = due
        connection.sendall(self._questions[self._next % len(self._questions)])
        self._next += 1

    @property
    def waiting(self) -> int:
        return len(self._begun)

    def answered(self, timeout_seconds: float) -> Iterator[float]:
        """How long each took that is answered by now, in seconds."""
        for key, _ in self._selector.select(max(0.0, timeout_seconds)):
            connection = key.fileobj
            assert isinstance(connection, ssl.SSLSocket)
            answer = self._receive(connection)
            if answer is not None:
                took = time.perf_counter() - self._begun.pop(connection)
                self._idle.append(connection)
                _check(answer)
                yield took

    def close(self) -> None:
        for connection in (*self._idle, *self._begun):
            connection.close()
        self._selector.close()

    def _receive(self, connection: ssl.SSLSocket) -> bytes | None:
        """The answer, if all of it is there."""
        connection.setblocking(False)
        try:
            heard = self._heard.pop(connection, b"") + connection.recv(RECEIVE_BYTES)
        except ssl.SSLWantReadError:  # a session ticket, and nothing more
            return None
        finally:
            connection.settimeout(SILENCE_SECONDS_MAX)
        head, found, body = heard.partition(b"\r\n\r\n")
        lengths = [int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        if not found or not lengths or len(body) < lengths[0]:
            self._heard[connection] = heard
            return None
        return heard

    def _connected(self) -> ssl.SSLSocket:
        if len(self._idle) + len(self._begun) >= CONNECTIONS_MAX:
            raise ValueError(f"more than {CONNECTIONS_MAX} questions wait for their answer")
        host, port = self._target.address
        plain = socket.create_connection((host, port), SILENCE_SECONDS_MAX)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = self._context.wrap_socket(plain, server_hostname=host)
        self._selector.register(connection, selectors.EVENT_READ)
        return connection

    def _request(self, body: bytes) -> bytes:
        head = (
            f"POST /mutate?timeout=3s HTTP/1.1\r\nHost: {self._target.address}\r\nUser-Agent: kube-apiserver-admission\r\n"
            f"Content-Length: {len(body)}\r\nAccept: application/json, */*\r\nContent-Type: application/json\r\n"
            "Accept-Encoding: gzip\r\n\r\n"
        )
        return head.encode() + body


def _check(answer: bytes) -> None:
    """Raises ValueError for an answer that does not rewrite all of a pod's images."""
    patch = re.search(rb'"patch": ?"([^"]*)"', answer)
    operations = base64.b64decode(patch[1]) if patch else b""
    if not answer.startswith(b"HTTP/1.1 200") or operations.count(b'"value": "127.0.0.1:65001/') != len(CONTAINERS):
        raise ValueError(f"a pod was not rewritten: {answer[:1000]!r} {operations[:1000]!r}")


def at_a_rate(target: Target, seconds: float, rate: float, seed: int) -> list[float]:
    """The times of questions that come at random, so many a second whether the ones before are answered or not; in seconds."""
    client, chance = Client(target, seed), random.Random(seed)
    times: list[float] = []
    begun = time.perf_counter()
    due = begun
    try:
        while client.waiting or due < begun + seconds:
            now = time.perf_counter()
            while due <= now and due < begun + seconds:
                client.ask(due)
                due += chance.expovariate(rate)
            times += client.answered(due - time.perf_counter() if due < begun + seconds else SILENCE_SECONDS_MAX)
            if now > due + SILENCE_SECONDS_MAX:
                raise ValueError(f"no answer for {SILENCE_SECONDS_MAX:g} s")
    finally:
        client.close()
    return times


def as_fast_as_it_goes(target: Target, seconds: float, at_once: int, seed: int) -> float:
    """Answers a second, when each question follows an answer."""
    client, count = Client(target, seed), 0
    begun = time.perf_counter()
    try:
        for _ in range(at_once):
            client.ask(begun)
        while time.perf_counter() < begun + seconds:
            for _ in client.answered(SILENCE_SECONDS_MAX):
                count += 1
                client.ask(0.0)
        return count / (time.perf_counter() - begun)
    finally:
        client.close()
