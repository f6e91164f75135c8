"""FAULTS.md, row 50: what metrics, logs and answers tell of names that strangers chose, and of secrets in URLs."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from prometheus_client import generate_latest
from prometheus_client.metrics import MetricWrapperBase

import agent.build
import agent.metrics
import supernode.metrics
import webhook.metrics
from agent.metrics import status_label
from agent.origin.client import Origin as Client
from agent.process import LogFormatter
from agent.values.errors import OriginError
from hack.origin import Fault, Origin
from tests.endpoint import REPOSITORY, Endpoint, push
from tests.origins import look_up

LABELS = {
    "cause",
    "component",
    "how",
    "kind",
    "outcome",
    "reason",
    "source",
    "state",
    "status",
    "verdict",
    "version",
    "what",
    "why",
}
STATUS_LABELS_MAX = 20
TREE = Path(__file__).resolve().parents[2]
SECRET = "c0ffee5ec4e7c0ffee"


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as origin:
        push(origin)
        yield origin


@pytest.fixture
def endpoint(tmp_path: Path, origin: Origin) -> Iterator[Endpoint]:
    with Endpoint(tmp_path, origin) as endpoint:
        yield endpoint


@pytest.mark.parametrize("module", [agent.build, agent.metrics, supernode.metrics, webhook.metrics])
def test_no_metric_has_a_label_for_a_name_that_somebody_else_chooses(module: object) -> None:
    """FAULTS 50."""
    metrics = [value for value in vars(module).values() if isinstance(value, MetricWrapperBase)]
    assert metrics
    assert {name for metric in metrics for name in metric._labelnames} <= LABELS


@pytest.mark.parametrize(("process", "others"), [("supernode", ("agent", "webhook")), ("agent", ("supernode", "webhook"))])
def test_a_process_shows_its_own_metrics_and_no_others(process: str, others: tuple[str, ...]) -> None:
    """An agent's gauges at 0 in a supernode's scrape would look like an agent that has lost everything."""
    lines = (
        f"import {process}.app, agent.build",
        "from prometheus_client import generate_latest",
        f"agent.build.announce({process!r})",
        "print(generate_latest().decode())",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, cwd=TREE)
    series = set(re.findall(r"^(\w+)", done.stdout, re.MULTILINE))
    assert any(name.startswith(f"darner_{process}_") for name in series)
    assert not [name for name in series if name.startswith(tuple(f"darner_{other}_" for other in others))]
    assert not [name for name in series if name.endswith("_created")]
    assert f'darner_build_info{{component="{process}",version="{version("darner")}"}} 1.0' in done.stdout


def test_a_label_has_few_values_whatever_pods_ask_for_and_registries_answer(endpoint: Endpoint, origin: Origin) -> None:
    """FAULTS 50."""
    for number in range(60):
        origin.fail(Fault(path=f"/odd{number}/", status=400 + number, body=b"{}"))
        assert endpoint.ask(f"{endpoint.prefix}/odd{number}/manifests/t{number}").status >= 400
        assert endpoint.ask(f"{endpoint.prefix}/odd{number}/blobs/sha256:{number:064x}").status >= 400
        assert endpoint.ask(f"/v2/odd{number}.invalid/x/manifests/1").status >= 400
        assert endpoint.ask("/v2/", method=f"ODD{number}").status >= 400
    shown = generate_latest().decode()
    assert "odd" not in shown.lower()
    assert not re.search(r"sha256|invalid|\bt59\b", shown)
    series = re.findall(r'^darner_agent_registry_answers_total\{status="(\w+)",what="(\w+)"\}', shown, re.MULTILINE)
    assert len({status for status, _ in series}) <= STATUS_LABELS_MAX
    assert {what for _, what in series} <= {"blob", "manifest", "listing", "ping", "other"}
    assert len({status_label(status) for status in range(100, 1000)}) <= STATUS_LABELS_MAX + 9


@pytest.mark.parametrize(
    "bad", ["\r\n2026-01-01 CRITICAL darner: all is lost", "\x1b[31mred", "\x00", "\x85", "\u2028", "\u202e"]
)
def test_names_that_would_begin_a_line_or_steer_a_terminal_are_escaped_in_answers_and_logs(
    endpoint: Endpoint, caplog: pytest.LogCaptureFixture, bad: str
) -> None:
    """FAULTS 50."""
    caplog.handler.setFormatter(LogFormatter("%(message)s"))
    caplog.set_level(logging.DEBUG)
    for path in (f"a{quote(bad)}/manifests/1", f"a/manifests/{quote(bad)}", f"a/blobs/sha256:{quote(bad)}"):
        answer = endpoint.ask(f"{endpoint.prefix}/{path}")
        assert answer.status in (400, 404)
        assert json.dumps(answer.message).count("\\n") == 0
        assert "\x1b" not in answer.message
    assert all(line.isprintable() for line in caplog.text.splitlines())
    assert not any(line.startswith("2026-01-01") for line in caplog.text.splitlines())


@pytest.mark.parametrize(
    "location",
    [
        f"https://user:{SECRET}@far.test/blob",
        f"https://far.test/blob?X-Amz-Signature={SECRET}",
        f"http://far.test/blob?sig={SECRET}",
        f"https://here.test/blob?sig={SECRET}",
        f"https://nobody.test/{SECRET}/blob",
        f"ftp://far.test/{SECRET}",
        f"https://far.test:99999/{SECRET}",
        f"https://[{SECRET}/",
        f"//far.test/{SECRET}",
        "{path}?again=" + SECRET,
    ],
)
@pytest.mark.parametrize("what", ["manifests", "blobs"])
def test_a_secret_in_a_url_that_a_registry_sends_to_is_in_no_answer_and_no_log(
    endpoint: Endpoint,
    origin: Origin,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    location: str,
    what: str,
) -> None:
    """FAULTS 50: signed URLs open what they lead to, for whoever reads them."""

    def connect(where: tuple[str, int], *args: Any, **more: Any) -> socket.socket:
        if where[0] != "127.0.0.1":
            raise ConnectionRefusedError
        return really(where, *args, **more)

    really = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", connect)
    caplog.set_level(logging.DEBUG)
    names = look_up(far_test="203.0.113.1", here_test="127.0.0.1", **{"127_0_0_1": "127.0.0.1"})
    endpoint.client._destinations._look_up = names
    origin.fail(Fault(path=f"/{what}/", status=307, headers={"Location": location}))
    reference = "1" if what == "manifests" else "sha256:" + "0" * 64
    answer = endpoint.ask(f"{what}/{reference}")
    assert answer.status >= 400
    shown = caplog.text + answer.body.decode() + str(answer.headers) + generate_latest().decode()
    assert SECRET not in shown


def test_a_secret_in_a_token_services_url_is_in_no_error_and_no_log(origin: Origin, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 50."""
    caplog.set_level(logging.DEBUG)
    challenge = f'Bearer realm="https://nobody.test/token?key={SECRET}",service="{SECRET}"'
    origin.fail(Fault(status=401, headers={"WWW-Authenticate": challenge}))
    client = Client([origin.address], [])
    with pytest.raises(OriginError) as failed:
        client.manifest(origin.address, REPOSITORY, "1", None)
    client.close()
    assert SECRET not in str(failed.value) + caplog.text
