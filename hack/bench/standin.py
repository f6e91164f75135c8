"""An origin with habits in a real one's place: hack/origin on a host of the lab, for what docker-registry cannot be told to do.

It is looked at as `hack.lab.registry.Registry` is. It runs in this process, which has little else to do while its clients are
programs of their own.
"""

from __future__ import annotations

from hack.lab import Host
from hack.lab.registry import BASIC, PASSWORD, USER, Answer, blob_bytes_in
from hack.origin import Access, Fault, Origin

CONNECTION_SHARE = 10
"""An origin of one slow connection gives it this part of its link."""
CONNECTIONS_MAX = 4
"""Of an origin that refuses the next one."""


class StandIn:
    port = 5000

    def __init__(self, host: Host, habit: Fault | None = None, access: Access | None = None) -> None:
        self.host = host
        self.name = f"{host.address}:{self.port}"
        self.authorization = self.pull_secret = ""
        self.origin = Origin(host.address, self.port, access)
        if habit:
            self.origin.behave(habit)
        with host.inside():
            self.origin.start()

    def stop(self) -> None:
        self.origin.stop()

    def answers(self) -> list[Answer]:
        """Everything that it answered."""
        return [Answer("", seen.method, seen.path, seen.status, seen.body_bytes) for seen in list(self.origin.requests)]

    def blob_bytes_sent(self, repository: str) -> dict[str, int]:
        """Bytes that left it for each blob that anybody asked for."""
        return blob_bytes_in(self.answers(), repository)


def with_tokens(host: Host, repository: str) -> StandIn:
    """A repository for alice alone, who has to fetch a token."""
    origin = StandIn(host, access=Access({USER: PASSWORD}, frozenset({repository}), bearer=True))
    origin.pull_secret = BASIC
    token = origin.origin.repositories.access.token(f"scope=repository:{repository}:pull", BASIC)
    origin.authorization = f"Bearer {token}"
    return origin


def slow_by_connection(host: Host, rate: int) -> StandIn:
    """`rate` is that of its link, in bytes a second."""
    return StandIn(host, Fault(path="/blobs/", bytes_per_second=rate // CONNECTION_SHARE))


def with_few_connections(host: Host) -> StandIn:
    return StandIn(host, Fault(at_once_max=CONNECTIONS_MAX))
