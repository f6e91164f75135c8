"""FAULTS 76: private images by the nodes' own identity, as in a cloud: kubelets and agents have the same credential provider."""

from __future__ import annotations

from hack.cluster.identity import REPOSITORIES
from tests.e2e.release import Release
from tests.e2e.space import Space, container_images, local

RUNS = "darner_agent_credential_provider_runs_total"
NODES = ("n0", "n1")
"""containerd 1.6 and 2."""


def test_a_private_image_runs_without_a_pull_secret_through_the_agents_whose_nodes_may_have_it(
    darner: Release, space: Space, plain_space: Space
) -> None:
    image = space.push(below=f"{REPOSITORIES}/", layers=(3_000_000,))
    size = sum(image.new_blobs.values())
    for node in NODES:
        before = darner.received(node)
        pod = space.run(f"web-{node}", image.private, node=node)
        assert container_images(pod) == [local(image.private)]
        assert "imagePullSecrets" not in pod["spec"]
        received = darner.received(node)
        assert sum(received.values()) - sum(before.values()) == size
        assert darner.metric_of("agent", darner.agents()[node], RUNS, outcome="answered") >= 1, "each node answers for itself"
    # Under its own name it is the kubelet that asks the same provider.
    pod = plain_space.run("web", image.private, node="n2")
    assert container_images(pod) == [image.private]
