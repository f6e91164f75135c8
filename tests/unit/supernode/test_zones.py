"""In which zone nodes are, by the API server's word: asked for one by one, believed over agents, and waited for by nobody."""

from __future__ import annotations

import http.server
import json
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.values.errors import UsageError
from hack.secrecy import secret
from supernode.zones import KEPT_SECONDS, LABEL, METADATA_ONLY, NodeApi, NodeZones, ZoneError
from tests.origins import Authority
from tests.tracker import Agent, Lab, in_loop

SECONDS_MAX = 60


class Cluster:
    """What the API server would say; every question is noted."""

    def __init__(self) -> None:
        self.zones = {"n1": "north", "n2": ""}
        self.down = threading.Event()
        self.asked: list[str] = []
        self.told: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self.now = 1000.0
        self.nodes = NodeZones(self.zone, lambda: self.now)
        self.nodes.on_zone = lambda node, zone: self.told.put((node, zone))

    def zone(self, node: str) -> str:
        self.asked.append(node)
        if self.down.is_set():
            self.down.clear()
            raise ZoneError("the API server is away")
        return self.zones[node]


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr("supernode.zones.RETRY_SECONDS", 0.0)
    cluster = Cluster()
    cluster.nodes.start()
    yield cluster
    cluster.nodes.stop()
    cluster.nodes._thread.join(SECONDS_MAX)


def test_a_node_is_asked_for_once_and_nobody_waits_for_it(cluster: Cluster) -> None:
    assert cluster.nodes.of("n1") == ""
    assert cluster.told.get(timeout=SECONDS_MAX) == ("n1", "north")
    assert [cluster.nodes.of("n1") for _ in range(3)] == ["north"] * 3
    assert cluster.asked == ["n1"]


def test_a_node_without_a_zone_is_no_news(cluster: Cluster) -> None:
    cluster.nodes.of("n2")
    cluster.nodes.of("n1")
    assert cluster.told.get(timeout=SECONDS_MAX) == ("n1", "north")
    assert cluster.nodes.of("n2") == ""
    assert cluster.asked == ["n2", "n1"]


def test_an_api_server_that_is_away_is_asked_again(cluster: Cluster) -> None:
    cluster.down.set()
    cluster.nodes.of("n1")
    assert cluster.told.get(timeout=SECONDS_MAX) == ("n1", "north")


def test_an_old_answer_is_good_until_there_is_a_new_one(cluster: Cluster) -> None:
    cluster.nodes.of("n1")
    cluster.told.get(timeout=SECONDS_MAX)
    cluster.now += KEPT_SECONDS
    cluster.zones["n1"] = "south"
    assert cluster.nodes.of("n1") == "north"
    assert cluster.told.get(timeout=SECONDS_MAX) == ("n1", "south")
    assert cluster.nodes.of("n1") == "south"


# What becomes of it in the tracker.


@in_loop
async def test_a_nodes_zone_is_the_clusters_word_and_not_its_agents(lab: Lab) -> None:
    agent = Agent(lab, "n1")
    assert agent.session.zone == ""
    lab.tracker.zone_known("n1", "north")
    lab.tracker.zone_known("nobody", "north")
    assert agent.session.zone == lab.tracker.scheduler.nodes[agent.session.number].zone == "north"


# The API server.


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: dict[str, tuple[int, bytes]]
    heard: list[tuple[str, str | None, str | None]]

    def do_GET(self) -> None:
        self.heard.append((self.path, self.headers["Authorization"], self.headers["Accept"]))
        status, body = self.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class ApiServer:
    def __init__(self, root: Path) -> None:
        self.account = root / "account"
        self.account.mkdir()
        self.token = secret("the-supernodes-own-token")
        (self.account / "token").write_text(self.token)
        authority = Authority(root, "cluster")
        (self.account / "ca.crt").write_bytes(authority.file.read_bytes())
        self.handler = type("Handler", (_Handler,), {"answers": {}, "heard": []})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self.handler)
        self.server.socket = authority.server("localhost").wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()
        environment = {"KUBERNETES_SERVICE_HOST": "localhost", "KUBERNETES_SERVICE_PORT": str(self.server.server_port)}
        self.api = NodeApi(environment, self.account)

    def node(self, name: str, status: int = 200, **labels: str) -> None:
        self.handler.answers[f"/api/v1/nodes/{name}"] = status, json.dumps({"metadata": {"labels": labels}}).encode()  # type: ignore[attr-defined]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()
        self.api.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ApiServer]:
    server = ApiServer(tmp_path)
    yield server
    server.close()


def test_a_node_is_got_by_its_name_and_of_it_the_metadata_alone(server: ApiServer) -> None:
    server.node("n1", **{LABEL: "north"})
    server.node("n2", other="label")
    assert [server.api("n1"), server.api("n2"), server.api("gone")] == ["north", "", ""]
    assert server.handler.heard[0] == ("/api/v1/nodes/n1", f"Bearer {server.token}", METADATA_ONLY)  # type: ignore[attr-defined]


def test_a_name_leads_nowhere_else(server: ApiServer) -> None:
    assert server.api("../secrets?x=y") == ""
    assert server.handler.heard[0][0] == "/api/v1/nodes/..%2Fsecrets%3Fx%3Dy"  # type: ignore[attr-defined]


def test_a_token_that_the_kubelet_has_renewed_is_the_one_that_is_shown(server: ApiServer) -> None:
    server.api("n1")
    new = server.account / "new"
    new.write_text(secret("the-supernodes-next-token"))
    new.replace(server.account / "token")
    server.api("n1")
    assert server.handler.heard[1][1] == "Bearer the-supernodes-next-token"  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [401, 403, 429, 500])
def test_a_refusal_is_no_answer_and_says_what_to_do_in_one_line(server: ApiServer, status: int) -> None:
    server.node("n1", status)
    with pytest.raises(ZoneError) as failed:
        server.api("n1")
    assert str(failed.value).isprintable()
    assert server.token not in str(failed.value)
    assert status != 403 or "supernode.nodeZones: never" in str(failed.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"metadata": 7}', b'{"metadata": {"labels": []}}', b"x" * (2 << 20)])
def test_an_answer_that_is_no_node_is_none(server: ApiServer, body: bytes) -> None:
    server.handler.answers["/api/v1/nodes/n1"] = 200, body  # type: ignore[attr-defined]
    with pytest.raises(ZoneError):
        server.api("n1")


def test_another_authority_than_the_clusters_is_not_believed(server: ApiServer, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (server.account / "ca.crt").write_bytes(Authority(tmp_path / "other", "strangers").file.read_bytes())
    with pytest.raises(ZoneError, match="certificate"):
        server.api("n1")
    assert server.handler.heard == []  # type: ignore[attr-defined]


def test_outside_a_cluster_the_setting_is_refused() -> None:
    with pytest.raises(UsageError, match=r"^--node-zones true: there is no cluster to ask"):
        NodeApi({})
