"""Settings of the agent process. How a setting is read and shown is `agent.config`'s affair."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import (
    address,
    check_piece_address,
    check_swarm_key,
    duration,
    listed,
    mode,
    network,
    one_of,
    or_none,
    pair,
    rate,
    reachable,
    setting,
    space,
    text,
    yes_or_no,
)
from agent.origin.mirrors import Mirror, mirror
from agent.origin.tls import TlsFiles, tls_files
from agent.runtimes.configuration import mirrored
from agent.swarm.discovery import service
from agent.values.address import Address, Network
from agent.values.errors import UsageError
from agent.values.pattern import Pattern, pattern
from agent.values.space import Percent
from agent.values.tag_pattern import TagPattern, tag_pattern


@dataclass(frozen=True)
class AgentSettings:
    """Serve this node's image pulls from the network of nodes."""

    node_name: str = setting(text, "name of this node, unique in the cluster")
    store: str = setting(text, "directory of this node's blobs; made if missing")
    zone: str = setting(text, "zone of this node; sources in the same zone are preferred", "")
    registry_listen: Address = setting(address, "where the container runtime pulls from; loopback only", "127.0.0.1:65001")
    piece_listen: Address = setting(address, "where other nodes fetch pieces", "0.0.0.0:65002")
    piece_address: Address | None = setting(
        or_none(reachable), "the address at which other nodes reach --piece-listen, if that does not name it", ""
    )
    http_listen: Address = setting(address, "health and metrics", "0.0.0.0:65003")
    supernodes: tuple[Address, ...] = setting(listed(reachable), "channels of the supernodes; without any, work alone", "")
    supernode_service: str | None = setting(
        or_none(service),
        "Service whose SRV records name the supernodes, such as _channel._tcp.NAME.NAMESPACE.svc.cluster.local",
        "",
    )
    supernodes_file: str = setting(
        text, "file with channels of supernodes, which are tried as long as DNS has no records of --supernode-service", ""
    )
    insecure_registries: tuple[str, ...] = setting(
        listed(text), "registries, as HOST:PORT, that may be spoken to in plain HTTP and may have a private address", ""
    )
    socket: str = setting(text, "Unix socket at which `darner get` on this node asks for files; none if empty", "")
    socket_mode: int = setting(mode, "who may use --socket, as the mode of a file", "0660")
    files_allow: tuple[Pattern, ...] = setting(
        listed(pattern),
        "servers that `darner get` may ask for files: HOST or HOST:PORT, or patterns of HOST/PATH; none if empty",
        "",
    )
    refused_networks: tuple[Network, ...] = setting(
        listed(network), "networks in which no registry is asked that is not listed, such as those of Services and pods", ""
    )
    private_registries: str = setting(
        one_of("tls", "refuse"),
        "registries with a private address that are not listed: asked over verified TLS, or refused",
        "tls",
    )
    allow_registries: tuple[Pattern, ...] = setting(
        listed(pattern), "only these are pulled from: registries, or patterns of REGISTRY/REPOSITORY; all if empty", ""
    )
    ca_files: tuple[str, ...] = setting(listed(text), "more certificate authorities for registries, as PEM files", "")
    trusted_realms: tuple[str, ...] = setting(
        listed(pair), "REGISTRY=HOST of token services of another domain that a registry's users may be sent to", ""
    )
    mirrors: tuple[Mirror, ...] = setting(
        listed(mirror), "REGISTRY=URL of mirrors that are asked before the registry itself, in order; a path is their prefix", ""
    )
    registry_tls: tuple[TlsFiles, ...] = setting(
        listed(tls_files), "REGISTRY=DIRECTORY of ca.crt, tls.crt and tls.key that are for this registry or mirror alone", ""
    )
    credential_provider_config: str = setting(
        text, "the kubelet's CredentialProviderConfig, by which this node has credentials for registries", ""
    )
    credential_provider_bin_dir: str = setting(text, "directory of the programs that --credential-provider-config names", "")
    swarm_key_file: str = setting(
        text, "file with the key by which the processes of a swarm know each other; two keys, a line each, while they change", ""
    )
    node_token_file: str = setting(
        text, "a service-account token of this node's agent, which shows supernodes which node it is", ""
    )
    encryption: str = setting(
        one_of("private", "always", "never"),
        "pieces that go between nodes inside TLS: private ones, for which somebody needed a credential, or always, or never",
        "private",
    )
    insecure_swarm: bool = setting(
        yes_or_no, "whether to do without a key on addresses that others reach, and believe everybody: true or false", "false"
    )
    store_quota: int | Percent = setting(space, "what the store may hold: bytes, or a percentage of its filesystem", "20%")
    store_free: int | Percent = setting(
        space,
        "what stays free there, bytes or a percentage; at least the 16% that kubelets want, unless it is 0",
        "20%",
    )
    store_age: float = setting(duration, "how long a blob that nobody uses is kept", "30d")
    containerd_content: str = setting(text, "directory of containerd's content store, a source that is only read", "")
    mirror_of: tuple[str, ...] = setting(
        listed(mirrored), "registries that the runtime is to ask this agent for under their own names, or _default for all", ""
    )
    containerd_hosts: str = setting(
        text, "directory of containerd's hosts.toml files, certs.d, in which it is told of --mirror-of", ""
    )
    containers_config: str = setting(
        text,
        "directory of registries.conf, in whose registries.conf.d CRI-O and podman are told of this agent and --mirror-of",
        "",
    )
    tag_interval: float = setting(duration, "how long a tag's digest is used before the origin is asked again", "30s")
    fresh_tags: tuple[TagPattern, ...] = setting(
        listed(tag_pattern), "tags that the origin is asked for at every pull: REGISTRY/REPOSITORY:TAG with *, or :TAG", ""
    )
    stale_if_error: float = setting(duration, "how long a tag's last digest is used while its origin is down", "24h")
    when_origin_down: str = setting(
        one_of("deny", "same-image", "allow"),
        "who is given what is here while its registry cannot be asked: deny, same-image (who was given it before), allow",
        "same-image",
    )
    lazy_pulling: bool = setting(
        yes_or_no,
        "whether a part of a blob that no node has is sent as its registry sends it, and the rest comes behind it",
        "false",
    )
    upload_rate: int = setting(rate("1Mi"), "bytes a second that other nodes may take from this one; 0 for no limit", "0")
    download_rate: int = setting(rate("4Mi"), "bytes a second of blobs that this node may take from nodes and registries", "0")
    origin_rate: int = setting(rate("1Mi"), "bytes a second of blobs that this node may take from registries", "0")
    log_level: str = setting(one_of("debug", "info", "warning", "error"), "least level of what is logged", "info")
    log_format: str = setting(one_of("text", "json"), "a line of text for each record of the log, or a JSON object", "text")

    def __post_init__(self) -> None:
        check_piece_address(self.piece_address, self.piece_listen)
        check_swarm_key(self.swarm_key_file, self.insecure_swarm, self.piece_listen)
        if self.mirror_of and not (self.containerd_hosts or self.containers_config):
            raise UsageError(
                "--mirror-of (or DARNER_MIRROR_OF): no runtime hears of it without --containerd-hosts or --containers-config"
            )
