"""The supernode's page in a real browser: during a real rollout in the lab, and with states that a lab does not have.

With DARNER_SCREENSHOTS=DIRECTORY the pictures of docs/page.md are taken anew.
"""

from __future__ import annotations

import copy
import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from agent.admin import ControlServer
from agent.values.address import Address
from hack.bench.image import push, random_image
from hack.bench.puller import Door, Puller
from hack.bench.rollout import pull_all, seconds_of
from hack.lab import Lab
from hack.lab.darner import HTTP_PORT, REGISTRY_PORT, Agent, Supernode
from hack.lab.forwarder import Forwarder
from hack.lab.registry import Registry
from supernode.api import application
from tests.browser import DESK, PATIENCE_MS, Watched, chromium
from tests.swarm import free_address

IMAGE_BYTES = 24 << 20
REGISTRY_BYTES_PER_SECOND = 2 << 20
"""So slow that the rollout is watched for many polls of the page."""
PHONE = {"width": 360, "height": 740}

STATE: dict[str, Any] = {
    "version": "9.8.7",
    "name": "darner-supernode-0",
    "bytes24h": {"peer": 700 << 20, "supernode": 200 << 20, "origin": 100 << 20},
    "nodes": [
        {
            "name": f"worker-{number}",
            "zone": f"zone-{number % 3}",
            "address": f"10.0.0.{number}:65002",
            "blobs": 12,
            "bytes24h": {"peer": number << 20, "supernode": 0, "origin": 0},
        }
        for number in range(1, 4)
    ],
    "nodesTotal": 3,
    "rollouts": [
        {
            "image": "registry.example.com/team/app",
            "blobs": 4,
            "bytes": 100 << 20,
            "nodes": 3,
            "nodesPulling": 2,
            "failed": None,
            "bytesDone": 120 << 20,
            "bytesTotal": 300 << 20,
            "progress": 0.4,
            "bytesPerSecond": 10 << 20,
            "secondsLeft": 18.0,
        }
    ],
    "swarms": [],
    "swarmsTotal": 0,
    "quarantines": [{"name": "worker-2", "reason": "sent wrong bytes to worker-1", "until": 25.0}],
    "leftAlone": [{"kind": "registry", "name": "registry.example.com", "why": "it had too many questions", "until": 40.0}],
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


class Told:
    """A control surface whose state is in the hand of the test."""

    def __init__(self, browser: Browser) -> None:
        self.state = copy.deepcopy(STATE)
        self.where = free_address()
        self.server = ControlServer(application(lambda: "", lambda question: self.state, lambda *name: 0), self.where)
        self.server.start()
        self._browser = browser
        self.watched: list[Watched] = []

    def open(self, viewport: dict[str, int] = DESK, scheme: str = "light") -> Watched:
        watched = Watched(self._browser, self.where, viewport, scheme)
        self.watched.append(watched)
        expect(watched.page.locator("#who")).to_contain_text("version", timeout=PATIENCE_MS)
        return watched

    def close(self) -> None:
        for watched in self.watched:
            watched.context.close()
        self.server.stop()


@pytest.fixture
def told(browser: Browser) -> Iterator[Told]:
    told = Told(browser)
    yield told
    told.close()
    assert [(watched.troubles, watched.elsewhere) for watched in told.watched] == [([], [])] * len(told.watched)


def _screenshot(page: Page, name: str) -> None:
    if directory := os.environ.get("DARNER_SCREENSHOTS"):
        page.screenshot(path=Path(directory) / f"page-{name}.png", full_page=True)


@pytest.mark.needs_root
@pytest.mark.timeout(300)
def test_a_real_rollout_is_watched_from_its_first_bytes_to_its_end_and_the_loss_of_the_supernode(browser: Browser) -> None:
    with Lab() as lab:
        registry = Registry(lab.host("origin"))
        push(registry, "team/app", "1", random_image(IMAGE_BYTES, layers=3))
        registry.host.shape(REGISTRY_BYTES_PER_SECOND)
        supernode = Supernode(lab.host("supernode"), [registry.name])
        agents = [
            Agent(lab.host(f"node{number}"), [supernode], [registry.name], ["--zone", f"zone-{number % 2}"])
            for number in range(3)
        ]
        with Forwarder(Address(supernode.host.address, HTTP_PORT), supernode.host) as way:
            _watch(browser, way.where, registry, supernode, agents)


def _watch(browser: Browser, where: Address, registry: Registry, supernode: Supernode, agents: list[Agent]) -> None:
    watched = Watched(browser, where, DESK, "light")
    page = watched.page
    expect(page.locator("#nodes-count")).to_have_text("3 nodes are connected", timeout=PATIENCE_MS)
    expect(page.locator("#rollouts")).to_contain_text("No image is being rolled out")
    assert page.locator("#nodes tr").all_inner_texts()[1].split("\t")[:2] == ["node1", "zone-1"]

    path = f"/v2/{registry.name.replace(':', '_')}/team/app"
    pullers = [Puller(agent.host, Door("127.0.0.1", REGISTRY_PORT, path, "1"), checked=True) for agent in agents]
    pulling = _in_thread(pullers)
    bar = page.locator("#rollouts progress")
    expect(bar).to_have_attribute("aria-valuetext", re.compile(r"^[1-9]\d? %$"), timeout=PATIENCE_MS)
    expect(page.locator("#rollouts p")).to_contain_text(
        re.compile(r"3 nodes, 3 still pulling · .* of .* · .*/s · .* left"), timeout=PATIENCE_MS
    )
    assert page.locator("#rollouts h3").inner_text() == f"{registry.name}/team/app"
    expect(page.locator("#sources")).to_contain_text(re.compile(r"\d[^·]*MiB from registries"), timeout=PATIENCE_MS)
    _screenshot(page, "rollout")

    page.emulate_media(color_scheme="dark")
    page.set_viewport_size(PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.evaluate(CONTRAST, "#rollouts p") >= 4.5
    for _ in range(2):  # past the link that skips to the rollouts
        page.keyboard.press("Tab")
    page.keyboard.type("node2")
    expect(page.locator("#nodes tr")).to_have_count(1)
    for _ in range(len("node2")):
        page.keyboard.press("Backspace")
    expect(page.locator("#nodes tr")).to_have_count(3)
    page.set_viewport_size(DESK)

    pulling.join()
    for puller in pullers:
        seconds_of(puller)
    expect(page.locator("#rollouts p")).to_contain_text("done: 3 nodes", timeout=PATIENCE_MS)
    expect(bar).to_have_attribute("aria-valuetext", "100 %")

    received = [agent.received_bytes() for agent in agents]
    from_others = sum(one["peer"] for one in received)
    assert from_others > IMAGE_BYTES / 2
    page.wait_for_function(
        "wanted => state.bytes24h.peer === wanted.peer && state.bytes24h.origin === wanted.origin",
        arg={source: sum(one[source] for one in received) for source in ("peer", "origin")},
        timeout=PATIENCE_MS,
    )
    widths = [
        float(width or 0)
        for width in page.eval_on_selector_all("#picture rect", "bars => bars.map(bar => bar.getAttribute('width'))")
    ]
    assert widths[0] > 40
    assert sum(widths) == pytest.approx(100)
    assert (watched.troubles, watched.elsewhere) == ([], [])

    supernode.kill()
    expect(page.get_by_role("alert")).to_contain_text("The supernode does not answer", timeout=PATIENCE_MS)
    expect(page.locator("#who")).to_contain_text(re.compile(r"last heard \d+ \w+ ago"))
    assert page.locator("#nodes tr").count() == 3, "what was known last stays to be read"
    supernode.start()
    expect(page.locator("#gone")).to_be_hidden(timeout=PATIENCE_MS)
    page.wait_for_function("peer => state.bytes24h.peer === peer", arg=from_others, timeout=PATIENCE_MS)  # agents tell it again
    assert watched.elsewhere == []
    watched.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_text_stands_out(told: Told, scheme: str) -> None:
    page = told.open(PHONE, scheme).page
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    assert page.locator("#nodes tr").first.inner_text().splitlines()[0] == "worker-2", "who is in quarantine comes first"
    for selector in ("h1", "#rollouts p", "#nodes .bad", "#sources li"):
        assert page.locator(selector).first.is_visible()
        assert page.evaluate(CONTRAST, selector) >= 4.5, f"{selector}: WCAG 2.2, 1.4.3"
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
    _screenshot(page, f"phone-{scheme}")


def test_all_is_reached_by_the_keyboard_and_shows_that_it_has_the_focus(told: Told) -> None:
    page = told.open().page
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the rollouts"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "rollouts-title"
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"
    page.keyboard.type("ZONE-1")
    expect(page.locator("#nodes tr")).to_have_count(1)
    expect(page.locator("#nodes tr")).to_contain_text("worker-1")
    told.state["bytes24h"]["peer"] += 1 << 40
    expect(page.locator("#sources")).to_contain_text("1.0 TiB from other nodes", timeout=PATIENCE_MS)
    assert page.evaluate("document.activeElement.id") == "filter", "a poll takes nobody's focus"


def test_parts_have_names_that_are_read_aloud(told: Told) -> None:
    page = told.open().page
    for name in ("Bytes that nodes received in 24 hours", "Rollouts", "Left alone", "Nodes"):
        assert page.get_by_role("region", name=name, exact=True).count() >= 1
    assert page.get_by_role("img", name="Bytes that nodes received in 24 hours").count() == 1
    assert page.get_by_role("progressbar", name="registry.example.com/team/app: progress").count() == 1
    assert page.get_by_role("searchbox", name="Show nodes whose name or zone has").count() == 1
    assert page.get_by_role("rowheader", name="worker-1").count() == 1
    expect(page.locator("#alone")).to_contain_text("registry registry.example.com")
    expect(page.locator("#alone")).to_contain_text("it had too many questions; for another 40 s")


def test_an_empty_cluster_says_what_will_be_seen(told: Told) -> None:
    told.state |= {"nodes": [], "nodesTotal": 0, "rollouts": [], "quarantines": [], "leftAlone": []}
    told.state["bytes24h"] = dict.fromkeys(("peer", "supernode", "origin"), 0)
    page = told.open().page
    expect(page.locator("#nodes-count")).to_have_text("No node is connected. Agents connect when they start.")
    expect(page.locator("#rollouts")).to_contain_text("The next pull shows here")
    expect(page.locator("#alone")).to_contain_text("Nobody: all")
    expect(page.locator("#sources")).to_contain_text("0 B from other nodes")


def test_names_of_strangers_are_text_and_run_nothing(told: Told) -> None:
    evil = "<img src=x onerror='document.title=1'><script>document.title=2</script>"
    told.state["nodes"][0] |= {"name": evil, "zone": evil}
    told.state["rollouts"][0]["image"] = evil
    told.state["rollouts"][0]["failed"] = evil
    told.state["quarantines"][0]["reason"] = evil
    told.state["leftAlone"][0] |= {"name": evil, "why": evil}
    page = told.open().page
    assert evil in page.locator("#nodes").inner_text()
    assert evil in page.locator("#rollouts").inner_text()
    assert evil in page.locator("#alone").inner_text()
    assert page.locator("main img").count() == 0
    assert page.locator("script").count() == 1
    assert page.title() == "Darner: darner-supernode-0"


def test_thousands_of_nodes_are_counted_and_some_of_them_shown(told: Told) -> None:
    node = told.state["nodes"][0]
    told.state["nodes"] = [node | {"name": f"node-{number:04}"} for number in range(1000)]
    told.state["nodesTotal"] = 10_000
    told.state["rollouts"] = [told.state["rollouts"][0] | {"image": f"registry.example.com/{number}"} for number in range(80)]
    page = told.open().page
    expect(page.locator("#nodes-count")).to_have_text("10,000 nodes are connected; 200 of them shown")
    assert page.locator("#nodes tr").count() == 200
    assert page.locator("#rollouts li").count() == 50
    assert page.locator("#rollouts-more").inner_text() == "and 30 others"
    page.locator("#filter").fill("node-0999")
    expect(page.locator("#nodes tr")).to_have_count(1)


def _in_thread(pullers: list[Puller]) -> threading.Thread:
    thread = threading.Thread(target=pull_all, args=(pullers,), name="rollout")
    thread.start()
    return thread


CONTRAST = """selector => {
  // WCAG 2.2, "relative luminance" and "contrast ratio", of the text on the nearest ground that is painted.
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const luminance = color => numbers(color).slice(0, 3).map(part => part / 255)
    .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
  const element = document.querySelector(selector);
  let painted = element;
  while (painted.parentElement && numbers(getComputedStyle(painted).backgroundColor)[3] === 0) painted = painted.parentElement;
  const colors = [getComputedStyle(element).color, getComputedStyle(painted).backgroundColor];
  const [light, dark] = colors.map(luminance).sort((one, other) => other - one);
  return (light + 0.05) / (dark + 0.05);
}"""
