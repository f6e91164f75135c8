"""Which cluster a person means: the one that kubectl would ask, from the same files, flags and variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml
from kubernetes import client, config

from cli.errors import ClusterUnreachable

HOME_CONFIG = "~/.kube/config"
POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class Target(NamedTuple):
    configuration: client.Configuration
    namespace: str
    """That of the context, or of the pod; empty where none is named."""


def target(kubeconfig: str, context: str, environment: Mapping[str, str]) -> Target:
    """Raises ClusterUnreachable: there is no configuration, or none that can be read."""
    configuration = client.Configuration()
    files = kubeconfig or environment.get("KUBECONFIG", "")
    if not files and os.path.exists(os.path.expanduser(HOME_CONFIG)):
        files = HOME_CONFIG
    if not files:
        return _of_this_pod(configuration, context)
    if kubeconfig and not os.path.exists(os.path.expanduser(kubeconfig)):
        raise ClusterUnreachable(f"there is no file {kubeconfig}; write another one after --kubeconfig")
    with _translated(files):
        config.load_kube_config(  # type: ignore[no-untyped-call]
            files, context=context or None, client_configuration=configuration, persist_config=False
        )
        contexts, active = config.list_kube_config_contexts(files)  # type: ignore[no-untyped-call]
        chosen = next((item for item in contexts if item["name"] == context), active)
        return Target(configuration, chosen["context"].get("namespace") or "")


def _of_this_pod(configuration: client.Configuration, context: str) -> Target:
    if context:
        raise ClusterUnreachable(
            f"there is no kubeconfig that knows the context {context}; set KUBECONFIG, or write --kubeconfig"
        )
    try:
        config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        configuration.proxy = None  # those of the environment are for the world outside
        return Target(configuration, POD_NAMESPACE.read_text().strip())
    except (config.ConfigException, OSError):
        words = f"there is no kubeconfig: set KUBECONFIG, write --kubeconfig, or put one at {HOME_CONFIG}"
        raise ClusterUnreachable(words) from None


@contextmanager
def _translated(files: str) -> Iterator[None]:
    try:
        yield
    except (config.ConfigException, OSError, yaml.YAMLError, ValueError, TypeError, KeyError, AttributeError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise ClusterUnreachable(f"the kubeconfig {files} cannot be used: {said}") from None
