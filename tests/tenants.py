"""What tests of permission share: registries with tenants, and nodes in this process whose runtimes pull for pods of these."""

from __future__ import annotations

import http.client
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent.http.server import Listener
from agent.origin.shown import Permission, WhenDown
from agent.registry.endpoint import Registry
from agent.values.address import Address
from agent.values.credential import Credential
from hack.origin import Fault, Image, Origin
from hack.origin.access import Access
from tests.swarm import SECONDS, Lab, Node

ALICE, BOB = Credential("alice", os.urandom(8).hex()), Credential("bob", os.urandom(8).hex())
HERS, HIS = "alice/app", "bob/app"
"""Repositories of which the other one may see nothing."""


@dataclass
class Tenancy(Access):
    """Private repositories are for those users whose they are."""

    only: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """By user, the private repositories that this one may pull."""

    def _may(self, user: str, repository: str) -> bool:
        return repository not in self.private or repository in self.only.get(user, ())


ACCESS = Tenancy(
    users={tenant.username: tenant.password for tenant in (ALICE, BOB)},
    private=frozenset({HERS, HIS}),
    only={ALICE.username: frozenset({HERS}), BOB.username: frozenset({HIS})},
)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes


class Runtime:
    """A node's registry endpoint, asked as a runtime asks it."""

    def __init__(self, node: Node, when_down: WhenDown = WhenDown.SAME_IMAGE) -> None:
        self.node = node
        self.permission = Permission()
        node.swarm._on_revoked = self.permission.refuse
        node.manifests.shared = node.swarm
        node.manifests._when_down = when_down
        self.registry = Registry(
            node.store, node.downloads, node.manifests, self.permission, node.swarm, node.client, when_down=when_down
        )
        node.client.on_shown = self.registry.shown
        self.listener: Listener = self.registry.listener(Address("127.0.0.1", 0))
        self.listener.start()

    def ask(
        self,
        origin: Origin,
        repository: str,
        path: str,
        credential: Credential | None = None,
        method: str = "GET",
        span: str = "",
    ) -> Answer:
        connection = http.client.HTTPConnection(*self.listener.address, timeout=SECONDS + 10)
        headers = ({"Authorization": credential.header} if credential else {}) | ({"Range": span} if span else {})
        try:
            connection.request(method, f"/v2/{origin.address.replace(':', '_')}/{repository}/{path}", headers=headers)
            with connection.getresponse() as answer:
                found = {name.lower(): value for name, value in answer.getheaders() if name.lower() != "date"}
                return Answer(answer.status, found, answer.read())
        finally:
            connection.close()

    def pull(self, origin: Origin, repository: str, image: Image, credential: Credential | None, tag: str = "1") -> None:
        """The manifest by tag, and each blob."""
        answer = self.ask(origin, repository, f"manifests/{tag}", credential)
        assert (answer.status, answer.body) == (200, image.manifest), answer
        for digest, content in image.blobs.items():
            answer = self.ask(origin, repository, f"blobs/{digest}", credential)
            assert (answer.status, answer.body) == (200, content), answer.status

    def close(self) -> None:
        self.listener.stop()


class Tenants(Lab):
    """A lab whose registry has two tenants, with another registry that is Bob's own and says of everything that it has it."""

    def __init__(self, root: Path) -> None:
        key = root / "key"
        key.write_text(os.urandom(32).hex())
        super().__init__(root, swarm_key_file=str(key))
        self.origin = Origin(access=replace(ACCESS))
        self.evil = Origin()
        self.runtimes: list[Runtime] = []
        self._more = ExitStack()

    def __enter__(self) -> Tenants:
        self._more.enter_context(self.evil)
        self.insecure.append(self.evil.address)
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        for runtime in self.runtimes:
            runtime.close()
        self._more.close()
        super().__exit__(*exception)

    def runtime(self, when_down: WhenDown = WhenDown.SAME_IMAGE) -> Runtime:
        runtime = Runtime(self.node(), when_down)
        self.runtimes.append(runtime)
        return runtime

    def claim(self, size: int) -> None:
        """Bob's registry answers every HEAD for a blob as if it had it."""
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        self.evil.behave(Fault(path="/blobs/", methods=frozenset({"HEAD"}), status=200, headers=headers))


def asked(origin: Origin, path: str = "") -> list[tuple[str, str]]:
    """What a registry answered with a success, by method and path."""
    return [(request.method, request.path) for request in origin.asked(path) if request.status in (200, 206, 304)]
