"""`darner sysdump`: all that says what went on, in one archive, for whoever is to find out why.

State, metrics, logs, events, objects and the values of the release. No secret: Secrets are not read but for the release's values,
in which everything is left out whose name or form says that it may be one.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.cluster import ClusterAccess
from cli.errors import CommandError, ExitCode
from cli.output import print_json, print_line, size
from cli.pods import name_of
from cli.release import Installation
from cli.secrecy import release_values, without_secrets
from cli.session import Session
from cli.state import STATE, local
from webhook.kube.api import Object, mapping_at, mappings_at, text_at

LOG_LINES_MAX = 10_000
PREVIOUS_LINES_MAX = 1_000
KINDS = {
    "daemonsets": "/apis/apps/v1",
    "statefulsets": "/apis/apps/v1",
    "deployments": "/apis/apps/v1",
    "replicasets": "/apis/apps/v1",
    "services": "/api/v1",
    "configmaps": "/api/v1",
    "leases": "/apis/coordination.k8s.io/v1",
    "endpointslices": "/apis/discovery.k8s.io/v1",
    "networkpolicies": "/apis/networking.k8s.io/v1",
    "poddisruptionbudgets": "/apis/policy/v1",
}
CLUSTER_WIDE = {
    "nodes": "/api/v1/nodes",
    "mutatingwebhookconfigurations": "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations",
}
Part = tuple[str, Callable[[], str]]
"""A file of the archive, and what gets it. Raises CommandError."""


def sysdump(
    session: Session,
    file: Annotated[Path, typer.Option("--file", "-f", metavar="FILE", help="Where to write it.")] = Path(
        "darner-sysdump.tar.gz"
    ),
) -> int:
    """Write state, metrics, logs, events, objects and values into one archive. No secret is in it."""
    installation = session.installation
    missing: dict[str, str] = {}
    try:
        with tarfile.open(file, "w:gz") as archive:
            for name, get in parts(installation):
                try:
                    _add(archive, name, get())
                except CommandError as error:
                    if error.exit_code == ExitCode.UNREACHABLE:
                        raise
                    missing[name] = str(error)
            _add(archive, "missing.json", _json(missing))
    except OSError as error:
        raise CommandError(f"{file} cannot be written: {error.strerror or error}") from None
    if session.json:
        print_json({"file": str(file), "bytes": file.stat().st_size, "missing": missing})
    else:
        for name, why in missing.items():
            print_line(f"not in it: {name}: {why}")
        print_line(f"{file}: {size(file.stat().st_size)}")
    return ExitCode.FINE


def parts(installation: Installation) -> Iterator[Part]:
    access, namespace = installation.access, installation.namespace
    lists = {resource: f"{api}/namespaces/{namespace}/{resource}" for resource, api in KINDS.items()} | CLUSTER_WIDE
    for resource, path in lists.items():
        yield f"objects/{resource}.json", partial(_listed, access, path)
    yield "events.json", partial(_listed, access, f"/api/v1/namespaces/{namespace}/events")
    yield "values.json", lambda: _json(release_values(access, namespace, installation.name))
    for component in installation.workloads:
        pods = installation.pods(component)
        yield f"objects/pods-{component}.json", partial(_json, without_secrets(pods))
        for pod in pods:
            yield from _of_pod(installation, component, pod)


def _of_pod(installation: Installation, component: str, pod: Object) -> Iterator[Part]:
    access, namespace, name = installation.access, installation.namespace, name_of(pod)
    for container in list(mappings_at(mapping_at(pod, "spec"), "containers"))[:1]:  # Darner's; others are somebody else's
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/log"
        query = {"container": text_at(container, "name"), "tailLines": str(LOG_LINES_MAX), "timestamps": "true"}
        yield f"logs/{name}.log", partial(_log, access, path, query)
        if any(item.get("restartCount") for item in mappings_at(mapping_at(pod, "status"), "containerStatuses")):
            before = query | {"previous": "true", "tailLines": str(PREVIOUS_LINES_MAX)}
            yield f"logs/{name}.previous.log", partial(_log, access, path, before)
    yield f"metrics/{name}.txt", partial(_asked, installation, component, name, "/metrics")
    if component != "webhook":
        yield f"state/{name}.json", partial(_asked, installation, component, name, STATE)


def _asked(installation: Installation, component: str, pod: str, path: str) -> str:
    if component == "agent":
        return local(installation, pod, "GET", path)
    return installation.access.fetch(installation.namespace, pod, installation.http_port(component), path).decode(
        errors="replace"
    )


def _listed(access: ClusterAccess, path: str) -> str:
    return _json(without_secrets(access.items(path)))


def _log(access: ClusterAccess, path: str, query: dict[str, str]) -> str:
    """A log tells no secret of ours, which tests hold it to; a registry's words in it may."""
    return str(without_secrets(access.text(path, query)))


def _json(document: Any) -> str:
    return json.dumps(document, indent=1, sort_keys=True)


def _add(archive: tarfile.TarFile, name: str, content: str) -> None:
    data = content.encode()
    member = tarfile.TarInfo(f"darner-sysdump/{name}")
    member.size, member.mtime, member.mode = len(data), int(time.time()), 0o600
    archive.addfile(member, io.BytesIO(data))
