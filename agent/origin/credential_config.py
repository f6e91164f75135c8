"""The kubelet's credential providers on paper: their configuration, which images each is for, and what their answers mean. Pure.

The forms are kubelet.config.k8s.io/v1 (CredentialProviderConfig) and credentialprovider.kubelet.k8s.io/v1; the rules of matching,
of the keyring's order and of caching are those of kubernetes/pkg/credentialprovider (1.36). Images are named as the kubelet names
them to providers: registry and repository, without tag and digest.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from agent.values.credential import Credential
from agent.values.errors import DarnerError
from agent.values.manifest import decoded
from agent.values.reference import DOCKER_HUB

CREDENTIALS_MAX = 8
"""Tried for one request; each costs a question to the registry."""
ANSWERS_MAX = 1024
"""Kept of one provider."""
PULL_SECONDS = 60.0
"""A pull is many requests here and one question at the kubelet: for one image, an answer is good for at least so long."""
KEY_CHARACTERS_MAX = 512
DURATION_CHARACTERS_MAX = 64
CONFIG_GROUP = "kubelet.config.k8s.io/"
PROVIDER_VERSIONS = tuple(f"credentialprovider.kubelet.k8s.io/{version}" for version in ("v1", "v1beta1", "v1alpha1"))

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)"
_URL = re.compile(r"(?:[^/?#]*@)?(\[[^\[\]]*\]|[^/?#:@\[\]]*)(?::([0-9]*))?(/[^?#]*)?(?:[?#].*)?", re.DOTALL)

Auths = Mapping[str, Credential]
"""Credentials by the images that they are for: `registry.example.com`, `*.example.com:5000/team`."""


class ProviderError(DarnerError):
    """A provider's fault, or its configuration's. Nothing that it said is in the message: it could be a secret."""


@dataclass(frozen=True)
class Provider:
    """One provider of the configuration: a program, and the images that it is asked about."""

    name: str
    """The program's file name."""
    api_version: str
    match_images: tuple[str, ...]
    args: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False, hash=False)
    cache_seconds: float

    def is_for(self, image: str) -> bool:
        return any(matches(glob, image) for glob in self.match_images)

    def question(self, image: str) -> bytes:
        """What the program gets on its standard input."""
        return json.dumps({"kind": "CredentialProviderRequest", "apiVersion": self.api_version, "image": image}).encode()


class _Variable(msgspec.Struct):
    name: str
    value: str = ""


class _Provider(msgspec.Struct, rename="camel"):
    name: str
    api_version: str
    match_images: list[str]
    default_cache_duration: str
    args: list[str] | None = None
    env: list[_Variable] | None = None
    token_attributes: dict[str, Any] | None = None


class _Config(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    providers: list[_Provider]


def parse_config(text: bytes) -> tuple[list[Provider], list[str]]:
    """The providers of a configuration in YAML or JSON, and the names of those that want a pod's service account token.

    Raises ProviderError for a configuration with which no kubelet would start.
    """
    try:
        config = msgspec.convert(yaml.safe_load(text), _Config)
    except msgspec.ValidationError as error:
        raise ProviderError(f"it is no CredentialProviderConfig: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, AttributeError) as error:
        # Their words would show lines of it. The last two PyYAML raises for texts that are not of the type which they claim.
        mark = getattr(error, "problem_mark", None)
        raise ProviderError("it is neither YAML nor JSON" + (f", in line {mark.line + 1}" if mark else "")) from None
    if config.kind != "CredentialProviderConfig" or not config.api_version.startswith(CONFIG_GROUP):
        raise ProviderError(f"it is no CredentialProviderConfig of {CONFIG_GROUP}v1")
    usable = [_provider(item) for item in config.providers if item.token_attributes is None]
    return usable, [item.name for item in config.providers if item.token_attributes is not None]


def _provider(item: _Provider) -> Provider:
    if item.name in ("", ".", "..") or "/" in item.name or " " in item.name:
        raise ProviderError(f"a provider is called {item.name!a}, which is no file name in the directory of plugins")
    if item.api_version not in PROVIDER_VERSIONS:
        raise ProviderError(f"the provider {item.name} has the apiVersion {item.api_version!a}, not {PROVIDER_VERSIONS[0]}")
    if not item.match_images:
        raise ProviderError(f"the provider {item.name} has no matchImages")
    seconds = seconds_of(item.default_cache_duration)
    if seconds is None or seconds < 0:
        raise ProviderError(f"the provider {item.name}: defaultCacheDuration is a duration such as 12h, and not below 0s")
    variables = {variable.name: variable.value for variable in item.env or ()}
    return Provider(item.name, item.api_version, tuple(item.match_images), tuple(item.args or ()), variables, seconds)


def seconds_of(text: str) -> float | None:
    """A duration as Go's time.ParseDuration reads it: `12h`, `1h30m`, `0`; None when it is none."""
    digits = text[1:] if text[:1] in ("+", "-") else text
    if digits == "0":
        return 0.0
    if len(text) > DURATION_CHARACTERS_MAX or not re.fullmatch(f"(?:{_TERM})+", digits):
        return None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in re.findall(_TERM, digits))
    return -seconds if text.startswith("-") else seconds


def matches(glob: str, image: str) -> bool:
    """Whether an image is one of those that `glob` names (the kubelet's URLsMatch).

    A star stands for characters of one label of the host, ports are the same or absent in both, and the path is a beginning,
    be it in the middle of a component.
    """
    wanted, given = _URL.fullmatch(glob), _URL.fullmatch(image)
    if not wanted or not given or (wanted[2] or "") != (given[2] or ""):
        return False
    globs, labels = wanted[1].split("."), given[1].split(".")
    if len(globs) != len(labels) or not (given[3] or "").startswith(wanted[3] or ""):
        return False
    return all(_label_matches(*pair) for pair in zip(globs, labels, strict=True))


def _label_matches(glob: str, label: str) -> bool:
    """In time that grows with the lengths alone, whatever a provider writes."""
    first, *rest = glob.split("*")
    if not rest:
        return glob == label
    if not label.startswith(first):
        return False
    position = len(first)
    for part in rest[:-1]:
        found = label.find(part, position)
        if found < 0:
            return False
        position = found + len(part)
    return label.endswith(rest[-1]) and len(label) - position >= len(rest[-1])


class _Auth(msgspec.Struct):
    username: str = ""
    password: str = ""


class _Response(msgspec.Struct, rename="camel"):
    api_version: str
    kind: str
    cache_key_type: str
    cache_duration: str | None = None
    auth: dict[str, _Auth | None] | None = None


@dataclass(frozen=True)
class ProviderAnswer:
    """What a provider said about an image, and for what else and how long that is true."""

    auths: Auths
    scope: str
    """`Image`, `Registry` or `Global`."""
    seconds: float


def parse_answer(provider: Provider, output: bytes) -> ProviderAnswer:
    """Raises ProviderError for what the kubelet would not take for an answer."""
    response = decoded(output, _Response)
    if response is None or response.kind != "CredentialProviderResponse":
        raise ProviderError("its answer is no CredentialProviderResponse")
    if response.api_version != provider.api_version:
        raise ProviderError(f"its answer is not of {provider.api_version}")
    if response.cache_key_type not in ("Image", "Registry", "Global"):
        raise ProviderError("its cacheKeyType is not Image, Registry or Global")
    seconds = provider.cache_seconds if response.cache_duration is None else seconds_of(response.cache_duration)
    if seconds is None:
        raise ProviderError("its cacheDuration is no duration such as 5m")
    # Without a name and a password it would be the anonymous request again.
    said = {key: auth for key, auth in (response.auth or {}).items() if auth and (auth.username or auth.password)}
    auths = {key: Credential(auth.username, auth.password) for key, auth in said.items() if len(key) <= KEY_CHARACTERS_MAX}
    return ProviderAnswer(auths, response.cache_key_type, seconds)


class Answers:
    """The answers of one provider that are still good. Seconds are of any clock that only goes forward."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], tuple[float, Auths]] = {}

    def keep(self, image: str, answer: ProviderAnswer, now: float) -> None:
        self._put("Image", image, now + max(answer.seconds, PULL_SECONDS), answer.auths)
        if answer.scope != "Image" and answer.seconds > 0:
            self._put(answer.scope, image, now + answer.seconds, answer.auths)

    def find(self, image: str, now: float) -> Auths | None:
        """That for the image before that for its registry, and that for everything last."""
        for scope in ("Image", "Registry", "Global"):
            until, auths = self._kept.get((scope, _subject(scope, image)), (now - 1, {}))
            if now <= until:
                return auths
        return None

    def _put(self, scope: str, image: str, until: float, auths: Auths) -> None:
        key = scope, _subject(scope, image)
        self._kept.pop(key, None)
        while len(self._kept) >= ANSWERS_MAX:
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = until, auths


def _subject(scope: str, image: str) -> str:
    return {"Image": image, "Registry": image.partition("/")[0]}.get(scope, "")


def in_order(image: str, answers: Iterable[Auths]) -> list[Credential]:
    """The credentials for an image among what its providers said, in the order in which they are tried (the kubelet's keyring).

    Keys are taken backwards: longer ones before shorter ones, labels before stars. Under one key, earlier providers come first.
    """
    ring: dict[str, list[Credential]] = {}
    for auths in answers:
        for key, credential in auths.items():
            if (place := _place(key)) is not None:
                ring.setdefault(place, []).append(credential)
    found = [credential for place in sorted(ring, reverse=True) if matches(place, image) for credential in ring[place]]
    if not found and image.startswith(f"{DOCKER_HUB}/"):
        found = ring.get("index.docker.io", [])
    return list(dict.fromkeys(found))[:CREDENTIALS_MAX]


def _place(key: str) -> str | None:
    """A key without scheme, user and API version; None when it is no URL."""
    match = _URL.fullmatch(re.sub(r"\Ahttps?://", "", key))
    if not match:
        return None
    host, port, path = match[1], match[2], match[3] or ""
    path = path[3:] if path.startswith(("/v1/", "/v2/")) else path
    return host + (f":{port}" if port else "") + (path if path != "/" else "")
