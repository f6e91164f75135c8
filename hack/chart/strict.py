"""Validates Kubernetes objects more strictly than the API server: a field that the schema does not know is an error.

Owns the way from Kubernetes' swagger.json, and from the definitions of custom resources, to a JSON schema: every object is
closed, integers have the range of their format, and the few types that the API writes in two ways (a quantity, a port by number
or by name) are spelled out. It knows shapes only: that a name is short enough or that a volume exists is for the tests to say.
Never talks to a cluster.

As a command it reads manifests on standard input and prints a line per problem: `strict.py OPENAPI CRDS... < manifests.yaml`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft7Validator, ValidationError
from jsonschema.validators import extend

# apimachinery, pkg/api/resource: <signedNumber><suffix>.
_QUANTITY = r"^[+-]?(\d+(\.\d*)?|\.\d+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?\d+)?$"
_METADATA = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_INTEGERS = {"int32": 31, "int64": 63}

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast, where PyYAML was built with it

_SPELLED_OUT: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"anyOf": [{"type": "number"}, {"type": "string", "pattern": _QUANTITY}]},
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["integer", "string"]},
    # Whatever these hold is the business of somebody else's schema.
    "io.k8s.apimachinery.pkg.apis.meta.v1.FieldsV1": {"type": "object"},
    "io.k8s.apimachinery.pkg.apis.meta.v1.Patch": {"type": "object"},
    "io.k8s.apimachinery.pkg.runtime.RawExtension": {"type": "object"},
}


def _unique_by_map_keys(_: Any, keys: list[str], items: Any, __: Any) -> Iterator[ValidationError]:
    """Lists that the API merges by key, such as `env` by `name`: an entry that is there twice is lost or drifts."""
    seen = set()
    for item in items if isinstance(items, list) else []:
        key = json.dumps([item.get(name) for name in keys])
        if key in seen:
            yield ValidationError(f"two entries have the same {' and '.join(keys)}: {key}")
        seen.add(key)


_Validator = extend(Draft7Validator, {"x-kubernetes-list-map-keys": _unique_by_map_keys})


class Schemas:
    """The closed schemas of one Kubernetes release, and of custom resources, by apiVersion and kind."""

    def __init__(self, openapi: Path, *custom: Path) -> None:
        definitions = json.loads(openapi.read_text())["definitions"]
        self._names = {
            ("/".join(part for part in (kind["group"], kind["version"]) if part), kind["kind"]): name
            for name, definition in definitions.items()
            for kind in definition.get("x-kubernetes-group-version-kind", [])
        }
        self._definitions = {name: _SPELLED_OUT.get(name) or _closed(definition) for name, definition in definitions.items()}
        for definition in (manifest for path in custom for manifest in manifests(path.read_text())):
            for version in definition["spec"]["versions"]:
                kind = (f"{definition['spec']['group']}/{version['name']}", definition["spec"]["names"]["kind"])
                self._names[kind] = "/".join(kind)
                schema = _closed(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"$ref": f"#/definitions/{_METADATA}"}
                self._definitions[self._names[kind]] = schema

    def problems(self, manifest: dict[str, Any]) -> list[str]:
        """One line for each thing that is wrong with an object; none when it is valid."""
        kind = (manifest.get("apiVersion", ""), manifest.get("kind", ""))
        who = f"{kind[1]} {manifest.get('metadata', {}).get('name')}"
        if kind not in self._names:
            return [f"{who}: there is no such kind as {' '.join(kind)}"]
        name = self._names[kind].replace("/", "~1")
        schema = {"$ref": f"#/definitions/{name}", "definitions": self._definitions}
        return [f"{who}: {error.json_path}: {error.message}" for error in _Validator(schema).iter_errors(manifest)]


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    """A swagger definition, or a part of one, as a JSON schema that refuses unknown fields."""
    closed = {key: value for key, value in schema.items() if key not in ("description", "format")}
    if schema.get("format") == "byte":
        closed["contentEncoding"] = "base64"
        closed["pattern"] = r"^[A-Za-z0-9+/]*={0,2}$"
    if bits := _INTEGERS.get(schema.get("format", "")):
        closed |= {"minimum": -(1 << bits), "maximum": (1 << bits) - 1}
    if "properties" in schema:
        closed["properties"] = {name: _closed(value) for name, value in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            closed[key] = _closed(schema[key])
    # Definitions without any property are empty objects, apart from those spelled out above and from the free-form JSON ones.
    if schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def manifests(text: str) -> list[dict[str, Any]]:
    """The objects of a rendered chart."""
    return [document for document in yaml.load_all(text, _Loader) if document is not None]


def main() -> int:
    schemas = Schemas(*map(Path, sys.argv[1:]))
    objects = manifests(sys.stdin.read())
    problems = [problem for manifest in objects for problem in schemas.problems(manifest)]
    if not objects:
        problems.append("there is no object on standard input")
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
