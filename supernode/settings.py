"""Settings of the supernode process; what they share with the agent's has the same name and meaning."""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import (
    address,
    between,
    check_piece_address,
    check_swarm_key,
    duration,
    listed,
    network,
    one_of,
    or_none,
    pair,
    rate,
    reachable,
    setting,
    size,
    space,
    text,
    whole,
    yes_or_no,
)
from agent.origin.mirrors import Mirror, mirror
from agent.origin.tls import TlsFiles, tls_files
from agent.values.address import Address, Network
from agent.values.pattern import Pattern, pattern
from agent.values.space import Percent
from agent.values.tag_pattern import TagPattern, tag_pattern


@dataclass(frozen=True)
class SupernodeSettings:
    """Schedule the pieces of every swarm and keep a cache of what the origin registries sent."""

    node_name: str = setting(text, "name of this supernode, unique in the cluster")
    store: str = setting(text, "directory of the cache; made if missing")
    piece_listen: Address = setting(address, "where agents fetch pieces", "0.0.0.0:65002")
    piece_address: Address | None = setting(
        or_none(reachable), "the address at which agents reach --piece-listen, if that does not name it", ""
    )
    http_listen: Address = setting(address, "health, metrics and the API", "0.0.0.0:65003")
    channel_listen: Address = setting(address, "where agents open their channels", "0.0.0.0:65004")
    insecure_registries: tuple[str, ...] = setting(
        listed(text), "registries, as HOST:PORT, that may be spoken to in plain HTTP and may have a private address", ""
    )
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
    ca_files: tuple[str, ...] = setting(listed(text), "more certificate authorities for registries, as PEM files", "")
    trusted_realms: tuple[str, ...] = setting(
        listed(pair), "REGISTRY=HOST of token services of another domain that a registry's users may be sent to", ""
    )
    swarm_key_file: str = setting(
        text, "file with the key by which the processes of a swarm know each other; two keys, a line each, while they change", ""
    )
    node_token_keys: str = setting(
        text, "file with the cluster's JWKS: agents have to show which node they are by a token of --node-token-account", ""
    )
    node_token_account: str = setting(text, "the agents' service account, as NAMESPACE/NAME", "")
    encryption: str = setting(
        one_of("private", "always", "never"),
        "pieces that go between nodes inside TLS: private ones, for which somebody needed a credential, or always, or never",
        "private",
    )
    insecure_swarm: bool = setting(
        yes_or_no, "whether to do without a key on addresses that others reach, and believe everybody: true or false", "false"
    )
    mirrors: tuple[Mirror, ...] = setting(
        listed(mirror), "REGISTRY=URL of mirrors that are asked before the registry itself, in order; a path is their prefix", ""
    )
    registry_tls: tuple[TlsFiles, ...] = setting(
        listed(tls_files), "REGISTRY=DIRECTORY of ca.crt, tls.crt and tls.key that are for this registry or mirror alone", ""
    )
    registry_credentials: str = setting(
        text,
        "docker config with the operator's credentials for registries, with which private blobs are fetched into the cache",
        "",
    )
    node_zones: bool = setting(
        yes_or_no, "whether to ask the API server, with this pod's account, in which zone each node is: true or false", "false"
    )
    store_quota: int | Percent = setting(space, "what the cache may hold: bytes, or a percentage of its filesystem", "20%")
    store_free: int | Percent = setting(
        space,
        "what stays free there, bytes or a percentage; at least the 16% that kubelets want, unless it is 0",
        "20%",
    )
    store_limit: int = setting(size, "bytes that the cache never exceeds, blobs that only pass included; 0 for no limit", "0")
    store_age: float = setting(duration, "how long a blob that nobody uses is kept", "30d")
    tag_interval: float = setting(duration, "how long a tag's digest is used before the origin is asked again", "30s")
    fresh_tags: tuple[TagPattern, ...] = setting(
        listed(tag_pattern), "tags that the origin is asked for at every pull: REGISTRY/REPOSITORY:TAG with *, or :TAG", ""
    )
    stale_if_error: float = setting(duration, "how long a tag's last digest is used while its origin is down", "24h")
    tag_recall: str = setting(
        one_of("two", "any"),
        "nodes that have to say what a tag lost here meant, while its origin is down: two, or any",
        "two",
    )
    peer_lease: float = setting(
        between(duration, "1s", "24h"), "alive time of a peer: how long it counts after it was last heard", "30s"
    )
    quarantine_failures: int = setting(
        between(whole, "1", "1000000"), "failures within the quarantine time that make a peer no source any more", "5"
    )
    quarantine_time: float = setting(duration, "how long a first quarantine lasts; each further one is twice as long", "30s")
    registry_connections: int = setting(
        between(whole, "1", "1000"), "nodes that are sent to one registry for pieces at once, at most, by this supernode", "8"
    )
    upload_slots: int = setting(between(whole, "1", "1000"), "pieces that a peer sends at once, at most", "16")
    upload_rate: int = setting(rate("1Mi"), "bytes a second that agents may take from this supernode; 0 for no limit", "0")
    origin_rate: int = setting(rate("1Mi"), "bytes a second of blobs that this supernode may take from registries", "0")
    log_level: str = setting(one_of("debug", "info", "warning", "error"), "least level of what is logged", "info")
    log_format: str = setting(one_of("text", "json"), "a line of text for each record of the log, or a JSON object", "text")

    def __post_init__(self) -> None:
        check_piece_address(self.piece_address, self.piece_listen)
        check_swarm_key(self.swarm_key_file, self.insecure_swarm, self.piece_listen, self.channel_listen)
