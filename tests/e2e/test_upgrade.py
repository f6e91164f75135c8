"""From the version before to this one and back, while pods start: none of them notices, and what the webhook made is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import Cluster
from hack.cluster.api import Api, Object
from tests.e2e import earlier
from tests.e2e.release import NAMESPACE, Release
from tests.e2e.space import RUNNING_SECONDS_MAX, Space, container_images, local, notes, running, state

START_INTERVAL_SECONDS = 1.0
UPGRADE_SECONDS_MAX = 540
"""Four rollouts of every part, node by node, and the starts that go on during two of them."""
CONFIGURATION = f"apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/darner-webhook.{NAMESPACE}"


class Starts:
    """Pods that start steadily, each from an image that no node has; each goes when it runs, to make room."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._end = threading.Event()
        self._error: Exception | None = None
        self._images: dict[str, str] = {}
        self._begun: dict[str, float] = {}
        self.admitted: dict[str, Object] = {}
        """By name, as they came out of the admission."""
        self.seconds: dict[str, float] = {}
        """What each took until it ran."""
        self.last_states: dict[str, str] = {}
        """Of those that do not run yet."""

    @contextlib.contextmanager
    def going_on(self) -> Iterator[None]:
        """Ends once all that were begun run, or have had their time."""
        thread = threading.Thread(target=self._run, name="starts")
        thread.start()
        try:
            yield
        finally:
            self._end.set()
            thread.join()
        if self._error:
            raise self._error

    def rewritten(self) -> list[str]:
        return [name for name, pod in self.admitted.items() if container_images(pod) == [local(self._images[name])]]

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._end.is_set():
                if time.monotonic() >= due:
                    self._begin()
                    due += START_INTERVAL_SECONDS
                self._look()
                time.sleep(0.1)
            deadline = time.monotonic() + RUNNING_SECONDS_MAX
            while len(self.seconds) < len(self.admitted) and time.monotonic() < deadline:
                self._look()
                time.sleep(0.1)
        except Exception as error:  # it is raised where the test is
            self._error = error

    def _begin(self) -> None:
        name = f"pod-{len(self.admitted)}"
        self._images[name] = self._space.push(name).name
        self._begun[name] = time.monotonic()
        self.admitted[name] = self._space.pod(name, self._images[name])

    def _look(self) -> None:
        for pod in self._space.pods():
            name = pod["metadata"]["name"]
            if name in self.seconds:
                continue
            self.last_states[name] = state(pod)
            if running(pod):
                self.seconds[name] = time.monotonic() - self._begun[name]
                del self.last_states[name]
                self._space.api.delete("Pod", self._space.name, name, grace_seconds=0)


@pytest.mark.unrewrites
@pytest.mark.timeout(UPGRADE_SECONDS_MAX, func_only=True)
def test_no_pod_fails_to_start_during_an_upgrade_from_the_version_before_and_a_rollback_to_it(
    darner: Release, space: Space, cluster: Cluster, api: Api, image_archive: Path, tmp_path: Path
) -> None:
    present, filled = _images(darner), _filled(api)
    cluster.load(earlier.image(image_archive, tmp_path))
    starts = Starts(space)
    darner.helm("upgrade", darner.name, earlier.CHART, values=earlier.values(darner.values))
    try:
        assert _images(darner) == {earlier.IMAGE}
        with starts.going_on():
            darner.helm("upgrade", darner.name, darner.chart, values=darner.values)
            assert _images(darner) == present
            assert _filled(api) == filled
            darner.helm("rollback", darner.name)
            assert _images(darner) == {earlier.IMAGE}
            assert _filled(api) == filled
    finally:
        darner.helm("upgrade", darner.name, darner.chart, values=darner.values)
    _nothing_was_noticed(starts)


@pytest.mark.unrewrites
@pytest.mark.timeout(UPGRADE_SECONDS_MAX, func_only=True)
def test_pods_start_in_time_while_every_part_is_replaced_and_put_back(darner: Release, space: Space, api: Api) -> None:
    filled = _filled(api)
    starts = Starts(space)
    with starts.going_on():
        darner.helm("upgrade", darner.name, darner.chart, values={**darner.values, "logLevel": "debug"})
        try:
            assert _filled(api) == filled
        finally:
            darner.helm("rollback", darner.name)
        assert _filled(api) == filled
    _nothing_was_noticed(starts)
    assert max(starts.seconds.values()) < RUNNING_SECONDS_MAX


def _nothing_was_noticed(starts: Starts) -> None:
    assert starts.last_states == {}
    assert set(starts.seconds) == set(starts.admitted)
    # Somebody answered every admission, and most pods went through Darner: nothing has passed by Darner being away.
    # Of three nodes one is without an agent at a time; of two that would be half of them, and pods would keep their names.
    assert [name for name, pod in starts.admitted.items() if not notes(pod)] == []
    assert len(starts.rewritten()) > len(starts.admitted) / 2


def test_an_upgrade_that_changes_nothing_restarts_nothing(darner: Release) -> None:
    before = _pods(darner)
    darner.helm("upgrade", darner.name, darner.chart, values=darner.values)
    assert _pods(darner) == before


def _pods(darner: Release) -> set[str]:
    return {pod["metadata"]["uid"] for part in ("agent", "supernode", "webhook") for pod in darner.pods(part)}


def _images(darner: Release) -> set[str]:
    """Of all that runs, or is on its way; a pod that is going is no part of the release any more."""
    pods = [pod for part in ("agent", "supernode", "webhook") for pod in darner.pods(part)]
    return {image for pod in pods if "deletionTimestamp" not in pod["metadata"] for image in container_images(pod)}


def _filled(api: Api) -> dict[str, Any]:
    """What the webhook wrote into objects of the release: its authority, its certificate and the swarm's key."""
    (webhook,) = api.json("GET", CONFIGURATION)["webhooks"]
    found = {"caBundle": webhook["clientConfig"]["caBundle"]}
    for name in ("darner-swarm", "darner-webhook-certificate"):
        secret = api.get("Secret", NAMESPACE, name)
        assert secret is not None
        assert secret["data"]
        found[name] = secret["data"]
    return found
