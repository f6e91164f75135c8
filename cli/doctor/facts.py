"""What is known about a cluster when the checks begin: objects as the API server writes them, and the answers to what was tried.

Pure values. `cli.doctor.gather` fills them in; a test writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from webhook.kube.api import Object


@dataclass(frozen=True)
class PodTrial:
    """A dry run of a pod of Darner's own."""

    component: str
    namespace: str
    refused: str = ""
    """The API server's words; empty: it would be admitted."""
    elsewhere: bool = False
    """It was tried in another namespace, because this one is not there yet: what is said of new namespaces is said of it."""


@dataclass(frozen=True)
class RewriteTrial:
    """A dry run of somebody's pod in a namespace that has opted in, with an image that runs there if there is one."""

    namespace: str
    image: str
    seconds: float
    """Until the API server had answered."""
    admitted: Object | None
    """The pod as it would be."""
    refused: str = ""
    """The API server's words where it would not be."""
    refused_plainly: str = ""
    """Its words about the same pod when it stays out of Darner; empty: that one would be admitted."""

    @property
    def refused_rewritten(self) -> bool:
        """Whether it is refused for what the webhook made of it."""
        return bool(self.refused) and not self.refused_plainly


@dataclass(frozen=True)
class PodProbe:
    """What `cli.doctor.probe` told from within a pod of Darner's."""

    pod: str
    node: str
    component: str
    trouble: str = ""
    """Why it told nothing."""
    addresses: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each supernode by its name; empty for a name that nobody knows."""
    answered: Mapping[str, str] = field(default_factory=dict)
    """By supernode that has an address, an empty text if its channel could be reached, or why not."""
    clock_ahead_seconds: float | None = None
    """Of this machine's."""
    disk_bytes: int | None = None
    """Of the filesystem of the store."""
    disk_free_bytes: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    """Those of the store: DARNER_STORE_QUOTA and DARNER_STORE_FREE."""
    state: Mapping[str, Any] | None = None
    """`/api/v1/state`, where the version that runs there has it."""
    metrics: Sequence[str] = ()
    """Lines of the bytes that it has received."""


@dataclass(frozen=True)
class Facts:
    namespace: str
    """Where Darner is, or is to be."""
    version: str = ""
    """Of the API server, such as v1.36.3."""
    clock_ahead_seconds: float | None = None
    """The API server's clock, ahead of this machine's; to a second, as it dates objects."""
    nodes: Sequence[Object] = ()
    pods: Sequence[Object] = ()
    """Of the release."""
    workloads: Sequence[Object] = ()
    """DaemonSet, StatefulSet and Deployment of the release."""
    configuration: Object | None = None
    """The release's MutatingWebhookConfiguration."""
    opted_in: Sequence[str] = ()
    """Namespaces whose pods the API server asks the webhook about."""
    strangers: Sequence[Object] = ()
    """Pods of others that use the host's network."""
    waiting: Sequence[Object] = ()
    """Pods of others that have not begun to run."""
    pod_trials: Sequence[PodTrial] = ()
    rewrite_trials: Sequence[RewriteTrial] = ()
    webhook_unreached: str | None = None
    """The API server's words when it was to hand a request to the webhook: empty if it could, None if nobody asked."""
    probes: Sequence[PodProbe] = ()
    unread: Mapping[str, str] = field(default_factory=dict)
    """What could not be read, such as for want of rights, and why."""

    @property
    def installed(self) -> bool:
        return bool(self.workloads)
