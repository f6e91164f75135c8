"""Image policies of the API server: one that knows nothing of local names, and the one that docs/policies.md recommends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hack.chart.helm import ROOT
from hack.cluster.api import Api, Object, RefusedError
from hack.cluster.origin import NAME
from hack.lab.process import wait_until
from tests.e2e.release import Release
from tests.e2e.space import DECISION, Space, container_images, local, notes, pod_spec, running

POLICIES = "apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
RUNNING_SECONDS_MAX = 30
KNOWN_SECONDS_MAX = 30
"""An API server looks at new policies every few seconds."""
ELSEWHERE = "127.0.0.1:65001/elsewhere.test/app:1"


def recommended() -> tuple[Object, Object]:
    """The policy and its binding as docs/policies.md has them, for the origin of these tests."""
    page = (ROOT / "docs" / "policies.md").read_text()
    text = next(block for block in page.split("```yaml\n")[1:] if "ValidatingAdmissionPolicy" in block).split("```")[0]
    policy, binding = yaml.safe_load_all(text.replace("registry.example.com", NAME))
    return policy, binding


@contextlib.contextmanager
def applied(api: Api, space: Space, policy: Object, binding: Object) -> Iterator[None]:
    """The policy, in the space alone, once the API server goes by it."""
    for item in (policy, binding):
        item["metadata"]["name"] = space.name
    binding["spec"] |= {
        "policyName": space.name,
        "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": space.name}}},
    }
    api.json("POST", POLICIES, policy)
    api.json("POST", POLICIES.removesuffix("ies") + "ybindings", binding)
    try:
        wait_until(lambda: refused(api, space, ELSEWHERE), KNOWN_SECONDS_MAX)
        yield
    finally:
        api.text("DELETE", POLICIES.removesuffix("ies") + f"ybindings/{space.name}")
        api.text("DELETE", f"{POLICIES}/{space.name}")


def refused(api: Api, space: Space, image: str) -> bool:
    """Whether the policy refuses a pod with this image; a dry run, which is nobody's try."""
    metadata = {"name": "dry", "namespace": space.name}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod_spec(image)}
    try:
        api.json("POST", f"api/v1/namespaces/{space.name}/pods?dryRun=All", pod)
    except RefusedError as error:
        return error.status == 422 and "ValidatingAdmissionPolicy" in str(error)
    return False


@pytest.fixture
def strict(api: Api, space: Space) -> Iterator[None]:
    """Images begin with the origin's name, and nothing else is allowed."""
    policy, binding = recommended()
    expression = f"object.spec.containers.all(c, c.image.startsWith('{NAME}/'))"
    policy["spec"] |= {"variables": [], "validations": [{"expression": expression}]}
    with applied(api, space, policy, binding):
        yield


@pytest.mark.usefixtures("strict")
@pytest.mark.parametrize("kind", ["Deployment", "Job"])
def test_a_workload_whose_rewritten_pods_are_refused_runs_within_30_seconds(darner: Release, space: Space, kind: str) -> None:
    """FAULTS 73."""
    image = space.push()
    if kind == "Job":
        spec = {**pod_spec(image.name), "restartPolicy": "Never"}
        space.create(kind, "web", {"template": {"metadata": {"labels": {"app": "web"}}, "spec": spec}})
    else:
        space.workload(kind, "web", image.name, replicas=2)
    number = 1 if kind == "Job" else 2
    pods = space.wait_all_running("web", number, RUNNING_SECONDS_MAX)
    assert [container_images(pod) for pod in pods] == [[image.name]] * number
    assert all("never came to exist while rewritten" in notes(pod)[DECISION] for pod in pods)
    said = [word for word in space.all_words() if word.startswith("DarnerLeftAlone: ")]
    assert said
    assert all("an admission policy may refuse the local names" in word for word in said)
    assert darner.metric("webhook", "darner_webhook_left_alone_total", reason="refused") >= number
    assert darner.metric("webhook", "darner_webhook_pauses_total", kind="refused") >= 1


@pytest.mark.usefixtures("strict", "darner")
def test_a_bare_pod_that_is_refused_runs_when_it_is_sent_again(space: Space) -> None:
    """FAULTS 73."""
    image = space.push()
    with pytest.raises(RefusedError, match="ValidatingAdmissionPolicy"):
        space.pod("web", image.name)
    space.pod("web", image.name)
    pod = space.wait_running("web", RUNNING_SECONDS_MAX)
    assert container_images(pod) == [image.name]
    assert "never came to exist" in notes(pod)[DECISION]


@pytest.mark.usefixtures("darner")
def test_under_the_recommended_policy_pods_are_rewritten_and_other_registries_refused_by_any_spelling(
    api: Api, space: Space
) -> None:
    image = space.push()
    with applied(api, space, *recommended()):
        space.workload("Deployment", "web", image.name)
        (pod,) = space.wait_all_running("web", 1, RUNNING_SECONDS_MAX)
        assert container_images(pod) == [local(image.name)]
        for name in ("elsewhere.test/app:1", ELSEWHERE, f"{NAME}.elsewhere.test/app:1", "127.0.0.1:65001/app:1"):
            assert refused(api, space, name), name
        assert not refused(api, space, local(image.name))
        added: dict[str, Any] = {"spec": {"ephemeralContainers": [{"name": "debug", "image": ELSEWHERE}]}}
        path = f"api/v1/namespaces/{space.name}/pods/{pod['metadata']['name']}"
        with pytest.raises(RefusedError, match="ValidatingAdmissionPolicy"):
            api.json("PATCH", f"{path}/ephemeralcontainers", added, "application/strategic-merge-patch+json")
        assert running(space.pods("web")[0])
