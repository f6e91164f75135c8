"""Settings of the webhook: one frozen object, one line per setting, read by the same functions as the agent's.

What concerns several settings at once is checked here too, so that every other module gets values that fit together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.config import address, duration, listed, load, one_of, reachable, setting, text, whole, yes_or_no
from agent.values.address import Address
from agent.values.errors import UsageError
from agent.values.pattern import Pattern, pattern
from webhook.admission.immutable import ImmutableImages
from webhook.admission.policy import Policy
from webhook.admission.selectors import Selector, selector_or_none
from webhook.breaker.pauses import OwnerKind, owner_kind
from webhook.kube.api import ObjectName, object_name

PROGRAM = "darner webhook"
ONLY_NAMESPACES_MAX = 32
"""Two watches and two threads for each."""
AGENT_VIEW_AGE_SECONDS_MIN = 20
"""A view is confirmed every 10 seconds, and a broken connection is found out and replaced within 10 more."""


def namespace_name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", value):
        raise ValueError(f"{value!r} is no name of a namespace")
    return value


def architecture(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_]{1,64}", value):
        raise ValueError(f"{value!r} is no architecture as images name it; write amd64 or arm64")
    return value


def label_value(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value):
        raise ValueError(f"{value!r} is no value of a label; write up to 63 letters, digits, dots, dashes and underscores")
    return value


def immutable_images(value: str) -> ImmutableImages:
    return ImmutableImages(one_of(*ImmutableImages)(value))


def server_name(value: str) -> str:
    """A DNS name or an IP address."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9A-Fa-f:.]{2,45}", value):
        raise ValueError(f"{value!r} is no name of a server; write a DNS name or an IP address")
    return value


@dataclass(frozen=True)
class WebhookSettings:
    """Rewrite the image names of pods at admission, so that they are pulled through the agent on their node."""

    listen: Address = setting(address, "admission over HTTPS", "0.0.0.0:10250")
    http_listen: Address = setting(address, "health and metrics", "0.0.0.0:8080")
    certificate_dir: str = setting(text, "directory of the certificate; made, with the certificate, if missing", "")
    certificate_secret: ObjectName | None = setting(object_name, "Secret of the certificate, instead; made if missing", "")
    certificate_names: tuple[str, ...] = setting(
        listed(server_name), "DNS names and IP addresses that the certificate is for", "localhost,127.0.0.1,::1"
    )
    certificate_life: float = setting(duration, "life of a serving certificate", "90d")
    authority_life: float = setting(duration, "life of the authority that signs it", "3650d")
    authority_overlap: float = setting(duration, "how long an old and a new authority are trusted side by side", "10m")
    certificate_interval: float = setting(duration, "how often the certificate and the trust in it are looked at", "30s")
    client_ca_file: str = setting(
        text, "PEM file of the authorities of API servers' client certificates; whoever reaches the port may ask if empty", ""
    )
    client_names: tuple[str, ...] = setting(listed(text), "common names of the API servers' client certificates", "")
    webhook_configuration: str = setting(text, "MutatingWebhookConfiguration whose caBundle is kept; none if empty", "")
    swarm_secret: ObjectName | None = setting(object_name, "Secret of the swarm's key; made if missing", "")
    namespace: str = setting(text, "namespace of this release; its pods are left alone", "")
    release: str = setting(label_value, "label of the pods and Secrets that are this release's; none if empty", "")
    excluded_namespaces: tuple[str, ...] = setting(
        listed(text),
        "more namespaces whose pods are left alone",
        "kube-system,kube-public,kube-node-lease",
    )
    only_namespaces: tuple[str, ...] = setting(
        listed(namespace_name), "the only namespaces in which it has rights; pods elsewhere are left alone; all if empty", ""
    )
    include_images: tuple[Pattern, ...] = setting(
        listed(pattern), "only these are rewritten: registries, or patterns of REGISTRY/REPOSITORY; all if empty", ""
    )
    # Istio's gateways say `image: auto` and count on finding exactly that when its own webhook has its turn.
    exclude_images: tuple[Pattern, ...] = setting(
        listed(pattern), "these are left alone, written alike", "docker.io/library/auto"
    )
    allow_registries: tuple[Pattern, ...] = setting(
        listed(pattern), "the agents' own --allow-registries: what they would refuse is left alone; all if empty", ""
    )
    agent_service: ObjectName | None = setting(
        object_name, "headless Service of the agents; pods are rewritten where they are ready, everywhere if empty", ""
    )
    agent_ready_percent: int = setting(
        whole, "a pod that names no node is rewritten while agents are ready on more than so many percent of their nodes", "50"
    )
    agent_view_age: float = setting(
        duration, "how old the view of the agents may be; with an older one, pods are left alone", "30s"
    )
    exclude_nodes: Selector | None = setting(
        selector_or_none, "selector of the labels of nodes where no agent runs; pods that may come there are left alone", ""
    )
    startup_taint: bool = setting(
        yes_or_no, "with a Lease: whether nodes lose the taint darner.dev/agent-not-ready when their agent is ready", "false"
    )
    node_runtimes: bool = setting(
        yes_or_no, "whether pods are left alone that go to nodes whose container runtime does not pull from an agent", "false"
    )
    pull_secrets: bool = setting(yes_or_no, "whether pods are given their pull secrets for the agent: true or false", "false")
    pull_secret_deadline: float = setting(
        duration, "how long an admission waits for them; beyond, the pod is left alone", "1500ms"
    )
    lease: ObjectName | None = setting(object_name, "Lease by which one replica at a time acts; made if missing", "")
    revert: bool = setting(
        yes_or_no, "with a Lease: whether a pod whose pull fails gets its original images back: true or false", "true"
    )
    immutable_images: ImmutableImages = setting(
        immutable_images,
        "with a Lease: when image volumes and ephemeral containers are rewritten: proven, always or never",
        "proven",
    )
    # Both compare a pod's images with those that they asked for (cloudnative-pg#6344, operator-lifecycle-manager#2986); the
    # third is a fork of the first. A controller that compares revisions, as Kubernetes' own do, does not belong here.
    excluded_owners: tuple[OwnerKind, ...] = setting(
        listed(owner_kind),
        "pods of these owners, as KIND.GROUP, are left alone: operators that replace a pod whose image differs",
        "Cluster.postgresql.cnpg.io,CatalogSource.operators.coreos.com,Cluster.postgresql.k8s.enterprisedb.io",
    )
    warm_on_admission: bool = setting(
        yes_or_no,
        "whether supernodes are told the images of pods that were rewritten, to fetch them early: true or false",
        "false",
    )
    warm_architectures: tuple[str, ...] = setting(
        listed(architecture), "for these, such as amd64, where a pod does not say; for the supernodes' own if empty", ""
    )
    swarm_key_file: str = setting(text, "file with the swarm's key, by which supernodes know the webhook that tells them", "")
    supernodes: tuple[Address, ...] = setting(listed(reachable), "channels of the supernodes that are told", "")
    supernode_service: str = setting(
        text, "Service whose SRV records name them, such as _channel._tcp.NAME.NAMESPACE.svc.cluster.local", ""
    )
    supernodes_file: str = setting(
        text, "file with channels of supernodes, for as long as DNS has no records of --supernode-service", ""
    )
    log_level: str = setting(one_of("debug", "info", "warning", "error"), "least level of what is logged", "info")
    log_format: str = setting(one_of("text", "json"), "a line of text for each record of the log, or a JSON object", "text")

    @property
    def policy(self) -> Policy:
        excluded = frozenset({self.namespace, *self.excluded_namespaces}) - {""}
        return Policy(excluded, self.include_images, self.exclude_images, self.release, self.allow_registries)

    @property
    def needs_cluster(self) -> bool:
        """Whether any setting is about objects of a cluster."""
        return any(
            (
                self.certificate_secret,
                self.webhook_configuration,
                self.swarm_secret,
                self.agent_service,
                self.pull_secrets,
                self.lease,
            )
        )


def load_webhook_settings(argv: Sequence[str], environment: Mapping[str, str]) -> WebhookSettings:
    """Raises UsageError with one line that says what to write instead."""
    settings = load(WebhookSettings, PROGRAM, argv, environment)
    if bool(settings.certificate_dir) == bool(settings.certificate_secret):
        raise UsageError(f"{PROGRAM}: write either --certificate-dir DIR or --certificate-secret NAMESPACE/NAME")
    if bool(settings.client_ca_file) != bool(settings.client_names):
        raise UsageError(
            f"{PROGRAM}: write --client-ca-file and --client-names together: an authority may sign for others than API servers"
        )
    if not settings.certificate_names:
        raise UsageError(f"{PROGRAM}: --certificate-names is empty; write the names by which the API server reaches the webhook")
    if len(settings.only_namespaces) > ONLY_NAMESPACES_MAX:
        raise UsageError(f"{PROGRAM}: --only-namespaces names more than {ONLY_NAMESPACES_MAX}; each is followed by itself")
    if settings.agent_ready_percent >= 100:
        raise UsageError(f"{PROGRAM}: --agent-ready-percent must be less than 100, because more than so many have to be ready")
    if settings.agent_view_age < AGENT_VIEW_AGE_SECONDS_MIN:
        raise UsageError(
            f"{PROGRAM}: --agent-view-age must be at least {AGENT_VIEW_AGE_SECONDS_MIN}s, a few times what confirms it"
        )
    if settings.warm_on_admission:
        _check_warming(settings)
    for name in ("certificate_life", "authority_life", "certificate_interval", "pull_secret_deadline"):
        if getattr(settings, name) <= 0:
            raise UsageError(f"{PROGRAM}: --{name.replace('_', '-')} must be more than 0s")
    return settings


def _check_warming(settings: WebhookSettings) -> None:
    """Raises UsageError."""
    from agent.swarm.discovery import service  # its library takes some memory, and is needed for this alone

    if not settings.swarm_key_file or not (settings.supernodes or settings.supernode_service):
        raise UsageError(f"{PROGRAM}: --warm-on-admission takes --swarm-key-file, and --supernodes or --supernode-service")
    if settings.supernode_service:
        try:
            service(settings.supernode_service)
        except ValueError as error:
            raise UsageError(f"{PROGRAM}: --supernode-service: {error}") from None
