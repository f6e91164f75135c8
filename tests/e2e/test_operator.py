"""An operator that compares a pod's images with those that it asked for, and makes the pod anew when they differ."""

from __future__ import annotations

from hack.cluster.api import Api
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import DECISION, Space, container_images, local, notes

ROUNDS = 5
TOLD_SECONDS_MAX = 15


def test_an_operator_that_recreates_pods_whose_image_differs_is_left_alone_after_five_rounds(
    darner: Release, space: Space, api: Api
) -> None:
    image = space.push()
    metadata = {"name": "operated", "namespace": space.name}
    owner = api.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
    for _ in range(ROUNDS):
        pod = space.pod("web", image.name, owner=owner)
        assert container_images(pod) == [local(image.name)]
        api.delete("Pod", space.name, "web", grace_seconds=0)
        wait_until(lambda: api.get("Pod", space.name, "web") is None)
    wait_until(lambda: darner.metric("webhook", "darner_webhook_paused", kind="owner") == 2, TOLD_SECONDS_MAX)
    pod = space.run("web", image.name, owner=owner)
    assert container_images(pod) == [image.name]
    assert "operated" in notes(pod)[DECISION]
    assert [word for word in space.all_words() if word.startswith("DarnerLeftAlone: ") and "operated" in word]
    assert darner.metric("webhook", "darner_webhook_pauses_total", kind="owner") >= 1
    # Whoever else makes pods there is not meant.
    assert container_images(space.pod("other", image.name)) == [local(image.name)]
