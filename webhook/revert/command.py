"""`darner revert`: puts the original images back into what does not run yet; with --uninstall takes away what was made.

For when Darner leaves, or is to stand aside: the chart's pre-delete hook runs it, and so can anybody with a kubeconfig. Each act
may be done twice, and what is gone already counts as done. A container that runs is never touched.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NoReturn, TextIO

from agent.values.errors import DarnerError, UsageError
from webhook.errors import Unreachable
from webhook.kube.api import METADATA, PAGE_ITEMS, Api, ObjectName, items_of, mapping_at, object_name, text_at
from webhook.pods import of_release, rewritten_by
from webhook.pullsecrets.dockerconfig import DERIVED_FROM, MANAGED_BY, MANAGER, derived_from
from webhook.revert.failures import patch, running, stuck, waiting
from webhook.settings import label_value

PROGRAM = "darner revert"
BECAUSE = "Darner stands aside"
ATTEMPTS_MAX = 4
SETTLE_SECONDS = 3.0
"""After the webhook configuration is deleted: API servers hear of it a moment later, and questions under way end."""
PARTLY_STATUS = 2
"""Some of it could not be done; the lines say what. 1: nothing was, as for a flag that is wrong or a cluster that is away."""


@dataclass(frozen=True)
class Act:
    """One line: what was done to what. `done` is false where it could not be."""

    what: str
    name: str
    did: str
    done: bool = True

    def __str__(self) -> str:
        return f"{self.what} {self.name}: {self.did}"


class Reverter:
    def __init__(self, api: Api, dry_run: bool, release: str = "") -> None:
        """Reverts what one release has made, or with an empty name what all have."""
        self._api = api
        self._release = release
        self._dry_run = dry_run

    def pods(self, namespace: str) -> Iterator[Act]:
        """Gives pods their original images back, in one namespace, or with an empty name in all."""
        for item in self._listed(_collection("/api/v1", "pods", namespace), rewritten_by(self._release)):
            metadata = item["metadata"]
            name = ObjectName(metadata["namespace"], metadata["name"])
            try:
                yield from self._pod(name, item)
            except Unreachable as error:
                yield Act("pod", str(name), str(error), done=False)

    def derived_secrets(self, namespace: str) -> Iterator[Act]:
        """Deletes the Secrets that Darner has derived, and none that merely bears its labels."""
        path = _collection("/api/v1", "secrets", namespace)
        selector = of_release(f"{MANAGED_BY}={MANAGER},{DERIVED_FROM}", self._release)
        for item in self._listed(path, selector, metadata_only=True):
            metadata = item["metadata"]
            name = ObjectName(metadata["namespace"], metadata["name"])
            if derived_from(metadata) is None:
                yield Act("secret", str(name), "kept, because it has the labels of a derived secret and is none")
            else:
                yield self.delete("secret", str(name), f"/api/v1/namespaces/{name.namespace}/secrets/{name.name}")

    def delete(self, what: str, name: str, path: str) -> Act:
        if self._dry_run:
            return Act(what, name, "would be deleted")
        try:
            status = self._api.ask("DELETE", path).status
        except Unreachable as error:
            return Act(what, name, str(error), done=False)
        if status in (200, 202):
            return Act(what, name, "deleted")
        if status == 404:
            return Act(what, name, "gone already")
        return Act(what, name, f"not deleted: the API server answered {status}", done=False)

    def _pod(self, name: ObjectName, pod: Mapping[str, Any]) -> Iterator[Act]:
        path = f"/api/v1/namespaces/{name.namespace}/pods/{name.name}"
        if volumes := stuck(pod):
            words = f"has to be made anew if it stays without {', '.join(volumes)}: nobody can change a volume"
            yield Act("pod", str(name), words)
        for _ in range(ATTEMPTS_MAX):
            pulls = waiting(pod)
            if not pulls or text_at(mapping_at(pod, "metadata"), "deletionTimestamp"):
                if kept := running(pod):
                    yield Act("pod", str(name), f"left as it is, because it runs: {', '.join(kept)}")
                return
            images = ", ".join(f"{pull.place.where} {pull.original}" for pull in pulls)
            if self._dry_run:
                yield Act("pod", str(name), f"would get its original images back: {images}")
                return
            answered = self._api.ask("PATCH", path, patch(pod, pulls, BECAUSE))
            if answered.status == 200:
                yield Act("pod", str(name), f"has its original images back: {images}")
                return
            if answered.status not in (404, 409, 422):
                yield Act("pod", str(name), f"not changed: the API server answered {answered.status}", done=False)
                return
            found = self._api.ask("GET", path)
            if found.status == 404:
                return
            pod = found.document
        yield Act("pod", str(name), "not changed, because it changes all the time", done=False)

    def _listed(self, path: str, selector: str, metadata_only: bool = False) -> Iterator[Mapping[str, Any]]:
        """Page by page. Raises Unreachable."""
        query = {"labelSelector": selector, "limit": str(PAGE_ITEMS)}
        while True:
            accept = METADATA.format(list="List") if metadata_only else "application/json"
            answered = self._api.ask("GET", path, query=query, accept=accept)
            items = items_of(answered.document)
            if answered.status != 200 or items is None:
                raise Unreachable(f"{path} cannot be listed: the API server answered {answered.status}")
            yield from items
            token = text_at(mapping_at(answered.document, "metadata"), "continue")
            if not token:
                return
            query["continue"] = token


def acts(reverter: Reverter, options: argparse.Namespace, pause: Callable[[float], None]) -> Iterator[Act]:
    """Everything that was asked for, in the order in which nothing comes back: first nothing more is rewritten."""
    if options.uninstall and options.webhook_configuration:
        path = f"/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/{options.webhook_configuration}"
        yield reverter.delete("mutatingwebhookconfiguration", options.webhook_configuration, path)
        if not options.dry_run:
            pause(SETTLE_SECONDS)
    yield from _as_far_as_possible("pods", reverter.pods(options.namespace))
    if options.uninstall:
        yield from _as_far_as_possible("secrets", reverter.derived_secrets(options.namespace))
        for name in options.release_secrets:
            yield reverter.delete("secret", str(name), f"/api/v1/namespaces/{name.namespace}/secrets/{name.name}")
        if options.lease:
            path = f"/apis/coordination.k8s.io/v1/namespaces/{options.lease.namespace}/leases/{options.lease.name}"
            yield reverter.delete("lease", str(options.lease), path)


def _as_far_as_possible(what: str, found: Iterator[Act]) -> Iterator[Act]:
    try:
        yield from found
    except Unreachable as error:
        yield Act(what, "in the cluster", str(error), done=False)


def _collection(api: str, resource: str, namespace: str) -> str:
    return f"{api}/namespaces/{namespace}/{resource}" if namespace else f"{api}/{resource}"


class _RevertParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{PROGRAM}: {message}; see {PROGRAM} --help")


def _named(value: str) -> ObjectName | None:
    try:
        return object_name(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _label(value: str) -> str:
    try:
        return label_value(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _named_list(value: str) -> tuple[ObjectName, ...]:
    return tuple(name for item in value.split(",") if (name := _named(item.strip())))


def read(argv: Sequence[str]) -> argparse.Namespace:
    """Raises UsageError."""
    parser = _RevertParser(prog=PROGRAM, allow_abbrev=False, description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--namespace", default="", help="only pods (and derived secrets) of this namespace (default: all)")
    parser.add_argument(
        "--release", type=_label, default="", help="only what bears this release's label darner.dev/release (default: all)"
    )
    parser.add_argument("--uninstall", action="store_true", help="delete derived secrets as well, and what the next three name")
    parser.add_argument("--webhook-configuration", default="", metavar="NAME", help="deleted before anything else")
    parser.add_argument(
        "--release-secrets", type=_named_list, default=(), metavar="NAMESPACE/NAME,...", help="the release's own Secrets"
    )
    parser.add_argument("--lease", type=_named, default=None, metavar="NAMESPACE/NAME", help="the release's Lease")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done")
    parser.add_argument("--output", choices=("text", "json"), default="text", help="a line each, in words or in JSON")
    options = parser.parse_args(list(argv))
    if not options.uninstall and (options.webhook_configuration or options.release_secrets or options.lease):
        parser.error("--webhook-configuration, --release-secrets and --lease need --uninstall")
    return options


def run(api: Api, options: argparse.Namespace, output: TextIO, pause: Callable[[float], None] = time.sleep) -> int:
    """Writes one line per act, as it happens. 0 if everything was done."""
    shown: Callable[[Act], str] = str if options.output == "text" else lambda act: json.dumps(asdict(act))
    status = 0
    for act in acts(Reverter(api, options.dry_run, options.release), options, pause):
        output.write(shown(act) + "\n")
        output.flush()
        status = status if act.done else PARTLY_STATUS
    return status


def main(argv: Sequence[str]) -> int:
    try:
        options = read(argv)
        from webhook.kube.client import Cluster  # its client takes a second to import, and a wrong flag is told at once

        cluster = Cluster(os.environ)
        answered = cluster.ask("GET", "/version")
        if answered.status != 200:
            raise Unreachable(f"the API server answered {answered.status}")
        return run(cluster, options, sys.stdout)
    except DarnerError as error:
        said = str(error)
        sys.stderr.write(f"{said if said.startswith(PROGRAM) else f'{PROGRAM}: {said}'}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
