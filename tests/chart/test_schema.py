"""values.schema.json: whatever is wrong with a value, Helm refuses it and names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from hack.chart.helm import CHART, Helm, Values

DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())


def values_in(values: Values, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value, maps included, with its JSON pointer."""
    for name, value in values.items():
        yield f"{path}/{name}", value
        if isinstance(value, dict):
            yield from values_in(value, f"{path}/{name}")


def with_value(pointer: str, value: Any) -> Values:
    for name in reversed(pointer.split("/")[1:]):
        value = {name: value}
    return value  # type: ignore[no-any-return]


def resolved(schema: dict[str, Any]) -> dict[str, Any]:
    return resolved(SCHEMA["definitions"][schema["$ref"].rsplit("/", 1)[1]]) if "$ref" in schema else schema


def at(pointer: str) -> dict[str, Any]:
    """The schema of a value; an empty one where Kubernetes' own schema begins."""
    schema = SCHEMA
    for name in pointer.split("/")[1:]:
        schema = resolved(schema.get("properties", {}).get(name, {}))
    return schema


EVERY = dict(values_in(DEFAULTS))
OURS = [pointer for pointer in EVERY if at(pointer)]
CLOSED = [pointer for pointer in OURS if "properties" in at(pointer) and pointer != "/global"]


@pytest.mark.parametrize("pointer", OURS)
def test_a_wrong_type_is_refused_by_name(helm: Helm, pointer: str) -> None:
    wrong = False if isinstance(EVERY[pointer], str) else "!"
    refused = helm.template(with_value(pointer, wrong))
    assert refused.returncode != 0
    assert f"at '{pointer}': " in refused.stderr


@pytest.mark.parametrize("pointer", ["", *CLOSED])
def test_an_unknown_value_is_refused_by_name(helm: Helm, pointer: str) -> None:
    refused = helm.template(with_value(f"{pointer}/surprise", 1))
    assert refused.returncode != 0
    assert f"at '{pointer}': additional properties 'surprise' not allowed" in refused.stderr


@pytest.mark.parametrize(
    ("pointer", "wrong"),
    [
        ("/nameOverride", "Upper"),
        ("/fullnameOverride", "a.b"),
        ("/commonLabels", {"app.kubernetes.io/name": "mine"}),
        ("/commonLabels", {"example.com/team": 7}),
        ("/listenAddress", "everywhere"),
        ("/logLevel", "verbose"),
        ("/image/repository", "darner@sha256:0"),
        ("/image/digest", "sha256:abc"),
        ("/image/pullPolicy", "Sometimes"),
        ("/imagePullSecrets/0", "registry-credentials"),
        ("/registries/insecure/0", "one:5000,two:5000"),
        ("/registries/mirrors/0/endpoints", ["https://m.example.com/v2/"]),
        ("/registries/mirrors/0/prefix", "/hub"),
        ("/registries/tls/0/secretName", ""),
        ("/registries/proxy/https", "https://proxy:3128"),
        ("/registries/proxy/http", "socks5://proxy:1080"),
        ("/registries/proxy/exceptions/0", "a,b"),
        ("/tagCache/interval", "30"),
        ("/tagCache/staleIfError", "1 day"),
        ("/authorization/whenOriginDown", "same image"),
        ("/tagCache/fresh/0", "latest"),
        ("/tagCache/fresh/0", "nginx:latest"),
        ("/tagCache/fresh/0", ":1,:2"),
        ("/agent/ports/pieces", 65536),
        ("/agent/store/hostPath", "var/lib/darner"),
        ("/agent/store/quota", "50GB"),
        ("/agent/store/free", "101%"),
        ("/agent/store/age", "a month"),
        ("/agent/containerd/contentPath", "var/lib/containerd"),
        ("/agent/containerd/hostsPath", "automatic"),
        ("/agent/crio/configPath", "etc/containers"),
        ("/mirror/registries", []),
        ("/mirror/registries/0", "https://docker.io"),
        ("/agent/credentialProvider/binDir", "opt/credentials"),
        ("/agent/bandwidth/upload", "512Ki"),
        ("/agent/bandwidth/download", "3Mi"),
        ("/supernode/bandwidth/origin", "10M"),
        ("/agent/updateStrategy/rollingUpdate/maxUnavailable", "0%"),
        ("/agent/updateStrategy/rollingUpdate/maxUnavailable", 0),
        ("/agent/startupProbe/periodSeconds", 0),
        ("/agent/extraArgs/0", 7),
        ("/agent/bandwidth/origin", 1),
        ("/supernode/store/free", 1),
        ("/supernode/store/sizeLimit", "60G"),
        ("/supernode/disruptionBudget/maxUnavailable", "101%"),
        ("/global/imagePullSecrets/0", {"secret": "credentials"}),
        ("/image/registry", "https://registry.example.com@"),
        ("/webhook/port", 0),
        ("/webhook/timeoutSeconds", 31),
        ("/webhook/matchConditions/0", {"name": "without-an-expression"}),
        ("/webhook/objectSelector/matchExpressions/0/operator", "NotExists"),
        ("/webhook/strategy/type", "OnDelete"),
        ("/agent/podLabels", {"app.kubernetes.io/component": "mine"}),
        ("/agent/extraEnv/0", {"value": "no name"}),
        ("/agent/tolerations/0/effect", "NoShedule"),
        ("/agent/resources/limits/memory", {}),
        ("/supernode/replicas", -1),
        ("/supernode/replicas", 1.5),
        ("/supernode/persistence/whenDeleted", "Keep"),
        ("/webhook/replicas", 0),
        ("/webhook/label", "darner.dev/"),
        ("/webhook/namespaces/mode", "opt"),
        ("/webhook/namespaces/exclude/0", "*"),
        ("/webhook/images/include/0", "docker.io/"),
        ("/webhook/certificate/existingSecret", "Not A Name"),
        ("/webhook/topologySpreadConstraints/0/whenUnsatisfiable", "Never"),
    ],
)
def test_a_value_of_the_right_type_that_cannot_be_is_refused_by_name(helm: Helm, pointer: str, wrong: Any) -> None:
    if "/0" in pointer:
        first, rest = pointer.split("/0", 1)
        values = with_value(first, [with_value(rest, wrong) if rest else wrong])
    else:
        values = with_value(pointer, wrong)
    refused = helm.template(values)
    assert refused.returncode != 0
    assert f"at '{pointer}" in refused.stderr


def test_the_schema_knows_the_values_and_no_others() -> None:
    def ours(pointer: str) -> bool:
        return "/resources/" not in pointer and bool(at(pointer))

    def known(schema: dict[str, Any], path: str = "") -> Iterator[str]:
        for name, inner in resolved(schema).get("properties", {}).items():
            yield f"{path}/{name}"
            if EVERY.get(f"{path}/{name}"):  # what is empty by default, such as affinity, is one value, whatever may be in it
                yield from known(inner, f"{path}/{name}")

    assert {pointer for pointer in known(SCHEMA) if ours(pointer)} == {pointer for pointer in EVERY if ours(pointer)}


def test_every_object_of_the_schema_is_closed_or_a_map_or_kubernetes_own() -> None:
    def objects(schema: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield path, schema
            for name, inner in schema.items():
                yield from objects(inner, f"{path}/{name}")

    found = dict(objects(SCHEMA, ""))
    maps = {"/definitions/labels", "/definitions/strings", "/definitions/amounts"}
    unlike = {path for path, schema in found.items() if schema.get("additionalProperties") is not False}
    assert unlike == maps | {"/definitions/kubernetes", "/properties/global"}  # other charts have their keys there
    assert all("type" in found[path]["additionalProperties"] for path in maps)


def test_the_chart_can_be_part_of_another(helm: Helm) -> None:
    assert helm.template({"global": {"imageRegistry": "registry.example.com"}}).returncode == 0
