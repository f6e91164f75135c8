"""The chart as a part of another one: left out by its condition, and with the registry and the secrets of the whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import yaml

from hack.chart.helm import CHART, Helm, Object, Values
from hack.chart.strict import manifests

Whole = Callable[[Values], list[Object]]

CONTAINERS = ("DaemonSet", "StatefulSet", "Deployment", "Job")


@pytest.fixture(scope="session")
def whole(helm: Helm, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Renders a chart that has this one as a part, under the condition that everybody writes."""
    chart = tmp_path_factory.mktemp("whole") / "platform"
    shutil.copytree(CHART, chart / "charts" / "darner")
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["version"]
    dependency = {"name": "darner", "version": version, "condition": "darner.enabled"}
    about = {"apiVersion": "v2", "name": "platform", "version": "1.0.0", "dependencies": [dependency]}
    (chart / "Chart.yaml").write_text(yaml.safe_dump(about))

    def whole(values: Values) -> list[Object]:
        rendered = helm("template", "mine", str(chart), "--namespace", "platform", values=values)
        assert rendered.returncode == 0, rendered.stderr
        return manifests(rendered.stdout)

    return whole


def pod_specs(objects: list[Object]) -> list[Object]:
    found = [item["spec"]["template"]["spec"] for item in objects if item["kind"] in CONTAINERS]
    return found + [item["spec"] for item in objects if item["kind"] == "Pod"]


def test_it_is_left_out_by_its_condition(whole: Whole) -> None:
    assert whole({"darner": {"enabled": False}}) == []
    assert whole({})


def test_every_image_comes_from_the_registry_of_the_whole_and_with_its_secrets(whole: Whole) -> None:
    objects = whole(
        {
            "global": {"imageRegistry": "mirror.example.com/all", "imagePullSecrets": ["one", {"name": "two"}], "other": 1},
            "darner": {"image": {"repository": "registry.example.com:5000/tools/darner"}, "imagePullSecrets": [{"name": "one"}]},
        }
    )
    specs = pod_specs(objects)
    assert len(specs) == 5
    for spec in specs:
        assert [container["image"].split(":")[0] for container in spec["containers"]] == ["mirror.example.com/all/tools/darner"]
        assert spec["imagePullSecrets"] == [{"name": "one"}, {"name": "two"}]


def test_without_its_condition_it_renders_nothing_alone_either(helm: Helm) -> None:
    rendered = helm.template({"enabled": False})
    assert rendered.returncode == 0
    assert manifests(rendered.stdout) == []
