"""The validator that all other tests of the chart rely on refuses what it has to refuse."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from hack.chart.strict import Schemas

Manifest = dict[str, Any]

DAEMONSET: Manifest = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "a", "labels": {"b": "c"}},
    "spec": {
        "selector": {"matchLabels": {"b": "c"}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "10%"}},
        "template": {
            "metadata": {"labels": {"b": "c"}},
            "spec": {
                "hostNetwork": True,
                "containers": [
                    {
                        "name": "a",
                        "image": "a",
                        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": ""}],
                        "ports": [{"containerPort": 1}],
                        "resources": {"limits": {"cpu": 2, "memory": "1.5Gi"}},
                        "livenessProbe": {"httpGet": {"port": "http"}},
                    }
                ],
            },
        },
    },
}


def test_a_valid_object_has_no_problems(schemas: Schemas) -> None:
    assert schemas.problems(DAEMONSET) == []


def container(manifest: Manifest) -> Manifest:
    first: Manifest = manifest["spec"]["template"]["spec"]["containers"][0]
    return first


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda m: m["spec"]["template"]["spec"].update(hostNetwrok=True), "'hostNetwrok' was unexpected"),
        (lambda m: m.update(spce={}), "'spce' was unexpected"),
        (lambda m: m["metadata"].update(label={}), "'label' was unexpected"),
        (lambda m: container(m).update(imagePullPolcy="Always"), "'imagePullPolcy' was unexpected"),
        (lambda m: container(m)["livenessProbe"]["httpGet"].update(prot=1), "'prot' was unexpected"),
        (lambda m: container(m)["livenessProbe"]["httpGet"].update(port=1.5), "1.5 is not of type 'integer', 'string'"),
        (lambda m: container(m)["livenessProbe"]["httpGet"].update(port=None), "None is not of type 'integer', 'string'"),
        (lambda m: container(m)["ports"][0].update(containerPort="1"), "'1' is not of type 'integer'"),
        (lambda m: container(m)["ports"][0].update(containerPort=1 << 40), "is greater than the maximum"),
        (lambda m: container(m)["env"][0].update(value=1), "1 is not of type 'string'"),
        (lambda m: container(m)["env"][0].pop("name"), "'name' is a required property"),
        (lambda m: container(m)["env"][1].update(name="A"), 'two entries have the same name: ["A"]'),
        (lambda m: container(m)["resources"]["limits"].update(memory="1 GB"), "'1 GB' is not valid"),
        (lambda m: m["metadata"]["labels"].update(b=1), "1 is not of type 'string'"),
        (lambda m: m["spec"].pop("selector"), "'selector' is a required property"),
        (lambda m: m.update(spec=None), "None is not of type 'object'"),
        (lambda m: m.update(kind="DeamonSet"), "there is no such kind as apps/v1 DeamonSet"),
        (lambda m: m.update(apiVersion="apps/v1beta2"), "there is no such kind as apps/v1beta2 DaemonSet"),
    ],
)
def test_a_misspelled_field_or_a_wrong_value_is_a_problem(
    schemas: Schemas, spoil: Callable[[Manifest], object], complaint: str
) -> None:
    manifest = copy.deepcopy(DAEMONSET)
    spoil(manifest)
    (problem,) = schemas.problems(manifest)
    assert complaint in problem


def test_bytes_have_to_be_base64(schemas: Schemas) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"key": "c2VjcmV0"}}
    assert schemas.problems(secret) == []
    secret["data"] = {"key": "not secret"}
    (problem,) = schemas.problems(secret)
    assert "'not secret' does not match" in problem


def test_every_object_of_the_schema_is_closed_unless_it_is_a_map_or_free_form(schemas: Schemas) -> None:
    open_ones = {
        name
        for name, definition in schemas._definitions.items()
        if definition.get("additionalProperties") is not False and "properties" in definition
    }
    assert open_ones == set()
