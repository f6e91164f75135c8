"""Which images are wanted, with whose rights."""

from __future__ import annotations

from typing import Any

import pytest

from agent.values.reference import to_local
from cli.errors import WrongUsage
from cli.warm.wanted import IMAGES_IN_POD_MAX, Batch, named, of_templates, template_of, workload_lists, workload_path


def template(*images: str, **spec: Any) -> dict[str, Any]:
    containers = [{"name": f"c{number}", "image": image} for number, image in enumerate(images)]
    return {"spec": {"containers": containers, **spec}}


def test_names_are_checked_and_each_is_there_once() -> None:
    assert named(["nginx", "redis:7", "nginx"]) == [Batch(("nginx", "redis:7"))]
    with pytest.raises(WrongUsage, match="'no name!' names no image"):
        named(["nginx", "no name!"])


def test_a_templates_images_are_pulled_with_its_rights() -> None:
    spec = {"serviceAccountName": "shop", "imagePullSecrets": [{"name": "key"}], "nodeSelector": {"pool": "a"}}
    init = [{"name": "i", "image": "init:1"}, {"name": "never", "image": "here:1", "imagePullPolicy": "Never"}]
    volumes = [{"name": "v", "image": {"reference": "model:1"}}, {"name": "w", "emptyDir": {}}]
    (batch,) = of_templates([template("app:1", initContainers=init, volumes=volumes, hostNetwork=True, **spec)])
    assert set(batch.images) == {"app:1", "init:1", "model:1"}
    assert batch.like == spec


def test_templates_that_pull_alike_are_one_batch_and_others_another() -> None:
    secret = {"imagePullSecrets": [{"name": "key"}]}
    batches = of_templates([template("a:1", "b:1"), template("c:1", **secret), template("b:1", "d:1")])
    assert [(batch.images, dict(batch.like)) for batch in batches] == [(("a:1", "b:1", "d:1"), {}), (("c:1",), secret)]


def test_no_pod_has_more_images_than_it_can_bear() -> None:
    images = [f"app:{number}" for number in range(IMAGES_IN_POD_MAX + 1)]
    assert [len(batch.images) for batch in named(images)] == [IMAGES_IN_POD_MAX, 1]


def test_of_a_rewritten_pod_the_original_names_are_wanted() -> None:
    (batch,) = of_templates([template(to_local("reg.test/app:1"))])
    assert batch.images == ("reg.test/app:1",)


def test_a_template_is_found_in_every_kind_of_workload() -> None:
    made = template("a:1")
    assert template_of({"spec": {"template": made}}) == made
    assert template_of({"spec": {"jobTemplate": {"spec": {"template": made}}}}) == made
    assert template_of(made) == made


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("deploy/web", "/apis/apps/v1/namespaces/shop/deployments/web"),
        ("Deployment/web", "/apis/apps/v1/namespaces/shop/deployments/web"),
        ("cronjob/nightly", "/apis/batch/v1/namespaces/shop/cronjobs/nightly"),
        ("pod/web-0", "/api/v1/namespaces/shop/pods/web-0"),
    ],
)
def test_a_workload_is_written_as_for_kubectl(written: str, path: str) -> None:
    assert workload_path("shop", written) == path


@pytest.mark.parametrize("written", ["web", "deploy/", "service/web", "deploy/a/b", ""])
def test_what_names_no_workload_is_told_how_to_write_one(written: str) -> None:
    with pytest.raises(WrongUsage, match="write deploy/NAME"):
        workload_path("shop", written)


def test_a_namespaces_images_are_those_of_what_makes_its_pods() -> None:
    assert [path.rpartition("/")[2] for path in workload_lists("shop")] == [
        "deployments",
        "statefulsets",
        "daemonsets",
        "cronjobs",
    ]
