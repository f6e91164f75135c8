"""What stands in names, files, settings, Secrets, pods and reviews."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from functools import cache
from typing import Any, cast

from agent.config import address, duration, pair, size, space
from agent.origin.client import Origin
from agent.origin.credential_config import Provider, ProviderError, in_order, parse_answer, parse_config
from agent.origin.destinations import Destinations
from agent.origin.mirrors import mirror
from agent.origin.proxies import Proxies
from agent.origin.tls import tls_files
from agent.registry.manifests import Manifests, _name
from agent.registry.target import RangeError, parse_range, parse_target
from agent.storage import disk
from agent.storage.verified import Verified
from agent.swarm import messages
from agent.swarm.discovery import in_service
from agent.values.address import Address
from agent.values.errors import RequestError, UsageError
from agent.values.pattern import pattern
from agent.values.pieces import PIECE_BYTES_CUT_MIN, Layout
from agent.values.reference import InvalidReference, Reference, from_local, is_local, to_local
from agent.values.tag_pattern import tag_pattern
from supernode.registry_credentials import parse
from tests.fuzz.servers import DIGEST, directory
from tests.fuzz.target import Target
from webhook.admission.handler import Judge
from webhook.admission.http import _answer
from webhook.admission.policy import Policy
from webhook.breaker.pauses import Pauses, leave_alone, owner_kind
from webhook.errors import BadReview
from webhook.gates import Rewrite
from webhook.pods import ImagePlace, controller_of, original_images, owners, pull_secrets
from webhook.pullsecrets.dockerconfig import derive, derived_from, original_of, registries_of, registries_with_credentials
from webhook.revert.causes import cause_of
from webhook.warm.names import warm_names

REGISTRIES = ("docker.io", "registry.test:5000", "quay.io")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass") if _is_text(data) else data.decode("latin-1")


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


# Supernodes.

SERVICE = "_channel._tcp.supernode.darner.svc.cluster.local"
DOMAIN = b"supernode.darner.svc.cluster.local"


def _supernodes_in_dns(data: bytes) -> None:
    """Targets, a line each, as a library has read them from an answer."""
    for found in in_service(SERVICE, [Address(_text(line), len(line)) for line in data.split(b"\n")]):
        assert found.host.encode().endswith(b"." + DOMAIN)
        assert found.host.isascii()
        assert found.host.count(".") == DOMAIN.count(b".") + 1


def _docker_config(data: bytes) -> None:
    for image, credential in parse(data).items():
        in_order("registry.test:5000/team/app", [{image: credential}])


# Names.


def _reference(data: bytes) -> None:
    reference = Reference.parse(_text(data))
    assert Reference.parse(str(reference)) == reference
    local = to_local(str(reference))
    assert is_local(str(reference)) or Reference.parse(from_local(local)) == reference


def _target(data: bytes) -> None:
    parse_target(data.decode("latin-1"))


def _range(data: bytes) -> None:
    span = parse_range(data.decode("latin-1"), 1000)
    assert span is None or 0 <= span[0] < span[1] <= 1000


# Files.


def _journal(data: bytes) -> None:
    """Of a blob of three pieces whose file has zeros."""
    layout = Layout.of(2 * PIECE_BYTES_CUT_MIN + 5)
    path = directory() / "journal"
    path.write_bytes(data)
    journal = disk.Journal(path, layout)
    fd = os.memfd_create("blob", os.MFD_CLOEXEC)
    try:
        os.ftruncate(fd, layout.size)
        restored = disk.restore(fd, layout, journal.earlier)
    finally:
        os.close(fd)
    assert restored.held & ~layout.everything == 0
    assert restored.held != layout.everything
    journal.append(0, bytes(32), disk.Proof.OWN)


def _verified(data: bytes) -> None:
    path = directory() / "verified"
    path.write_bytes(data)
    known = Verified(path)
    known.keep_only({DIGEST})
    known.write()


@cache
def _manifests() -> Manifests:
    return Manifests(directory() / "kept", cast(Origin, None), interval=30.0, stale_if_error=1e9, now=lambda: 1000.0)


def _kept_answer(data: bytes) -> None:
    """What the disk has of a tag, and of the manifest that it meant."""
    root, manifests = directory() / "kept", _manifests()
    (root / "tags" / _name("registry.test", "team/app", "1", None)).write_bytes(data)
    manifests.recall(messages.Recall(1, "registry.test", "team/app", "1", True))
    (root / "manifests" / DIGEST.removeprefix("sha256:")).write_bytes(data)
    assert manifests.kept(DIGEST) is None


# Settings.

_KINDS: tuple[Callable[[str], Any], ...] = (
    mirror, tls_files, pattern, tag_pattern, pair, size, space, duration, address, owner_kind,
)  # fmt: skip


def _setting(data: bytes) -> None:
    if data:
        _KINDS[data[0] % len(_KINDS)](_text(data[1:]))


def _proxies(data: bytes) -> None:
    proxy, _, exceptions = _text(data).partition("\n")
    Proxies({"HTTPS_PROXY": proxy, "NO_PROXY": exceptions}).before("https", "registry.test", 443)


def _listed(data: bytes) -> None:
    names = _text(data).split(",")
    Destinations(names).url(names[0], "/v2/")


# Credential providers.

IMAGE = "registry.test:5000/team/app"
PROVIDER = Provider("provider", "credentialprovider.kubelet.k8s.io/v1", ("*.test:5000",), (), {}, 60.0)


def _provider_answer(data: bytes) -> None:
    said = parse_answer(PROVIDER, data)
    for credential in in_order(IMAGE, [said.auths]):
        credential.header.encode("ascii")
        assert credential.key


def _provider_config(data: bytes) -> None:
    providers, _ = parse_config(data)
    for provider in providers:
        provider.is_for(IMAGE)
        provider.question(IMAGE)


# The webhook.


def _object(data: bytes) -> dict[str, Any]:
    """As the API server would pass it on; what is no JSON object it does not."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    return document if isinstance(document, dict) else {}


def _pull_secret(data: bytes) -> None:
    kind, key = (("dockerconfigjson", ".dockerconfigjson"), ("dockercfg", ".dockercfg"))[bool(data) and data[0] & 1]
    metadata = {"name": "s", "namespace": "n", "uid": "u", "resourceVersion": "1"}
    content = base64.b64encode(data[1:]).decode()
    original = original_of({"type": f"kubernetes.io/{kind}", "metadata": metadata, "data": {key: content}})
    if original:
        derived = derive(original, registries_with_credentials(original, REGISTRIES))
        json.dumps(derived).encode("ascii")
        assert derived_from({**derived["metadata"], "ownerReferences": derived["metadata"]["ownerReferences"]}) == "s"


def _secret_object(data: bytes) -> None:
    """A Secret as the API server has it, every field of which somebody may have written."""
    secret = _object(data)
    original_of(secret)
    metadata = secret.get("metadata")
    if isinstance(metadata, dict):
        derived_from(metadata)
        registries_of(metadata)


def _review(data: bytes) -> None:
    """As the application answers, which catches everything and logs it."""
    policy = Policy(release="darner", exclude=(pattern("quay.io/*"),))
    judge = Judge(policy, (leave_alone(lambda: Pauses(), (), lambda: 0.0),))
    coroutine = _answer(data, judge)
    try:
        coroutine.send(None)
    except StopIteration as end:
        answered = end.value
    json.dumps(answered).encode("ascii")
    assert answered["response"]["allowed"] is True


def _pod(data: bytes) -> None:
    pod = _object(data)
    original_images(pod)
    pull_secrets(pod)
    owners(pod, "shop")
    controller_of(pod, "shop")
    warm_names(pod, [Rewrite(ImagePlace("containers", "web", "", "nginx", False), "nginx", "", "", "")])


def _pauses(data: bytes) -> None:
    read = Pauses.read(_text(data), 1000.0)
    read.with_another("registry registry.test", 1000.0)[0].text(1000.0)
    read.counts(1000.0)


def _failure(data: bytes) -> None:
    cause_of(_text(data))


POD = {
    "kind": "Pod",
    "metadata": {
        "name": "web",
        "annotations": {"darner.dev/original-images": '{"containers": {"a": "nginx"}}', "a": "b"},
        "labels": {"a": "b"},
        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "u", "controller": True}],
    },
    "spec": {
        "containers": [{"name": "a", "image": "127.0.0.1:65001/docker.io/library/nginx"}, {"name": "b", "image": "quay.io/b"}],
        "initContainers": [{"name": "i", "image": "registry.test:5000/a:1", "imagePullPolicy": "Never"}],
        "ephemeralContainers": [{"name": "e", "image": f"a@{DIGEST}"}],
        "volumes": [{"name": "v", "image": {"reference": "busybox:1"}}],
        "imagePullSecrets": [{"name": "s"}],
        "nodeSelector": {"kubernetes.io/os": "linux"},
    },
}
REVIEW = {
    "apiVersion": "admission.k8s.io/v1",
    "kind": "AdmissionReview",
    "request": {"uid": "u", "kind": {"kind": "Pod"}, "namespace": "shop", "operation": "CREATE", "object": POD},
}
DOCKER_CONFIG = b'{"auths": {"https://registry.test:5000/v2/team": {"auth": "dTpw"}, "*.io": {"username": "u"}, "docker.io": {}}}'
PROVIDER_ANSWER = {
    "apiVersion": PROVIDER.api_version,
    "kind": "CredentialProviderResponse",
    "cacheKeyType": "Registry",
    "cacheDuration": "1h30m",
    "auth": {"*.test:5000/team": {"username": "u", "password": "p"}, "https://registry.test:5000/v2/": None},
}
PROVIDER_CONFIG = b"""apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- apiVersion: credentialprovider.kubelet.k8s.io/v1
  name: p
  matchImages: ["*.test:5000"]
  defaultCacheDuration: 12h
  env: [{name: A}]
"""
RECORD = disk._RECORD.pack(0, 0, bytes(32)) + disk._RECORD.pack(1, 2, bytes(32)) + disk._RECORD.pack(2, 1, bytes(32))
NAMES = (b"nginx", b"host:5000/a/b:1.0", f"a_b/c--d@{DIGEST}".encode(), b"127.0.0.1:65001/docker.io/library/a", b"[::1]:5/a")
PATHS = tuple(
    f"/v2/{path}".encode() for path in ("", "docker.io/a/manifests/1", f"a.b_5000/c/blobs/{DIGEST}?ns=d.e", "a/b/tags/list?n=1")
)
SETTINGS = (
    b"docker.io=https://harbor.test/hub", b"reg.test=/etc/reg", b"quay.io/team/*", b"quay.io/team/*:dev-*", b"reg.test=auth.test",
    b"50Gi", b"20%", b"12.5s", b"[::1]:65001", b"Cluster.postgresql.cnpg.io",
)  # fmt: skip
KEPT = (b"\x82\xa6digest\xa1a\xa8asked_at\xcb" + bytes(8), b"\x82\xaamedia_type\xa1a\xa4body\xc4\x02{}")
FAILURES = (
    b'failed to pull and unpack image "127.0.0.1:65001/docker.io/library/a:1": unexpected status: 502 Registry At Fault',
    b'Back-off pulling image "a": ErrImagePull: [rpc error: code = NotFound desc = failed: not found, x]',
)

TARGETS = (
    Target("supernodes-in-dns", _supernodes_in_dns, (), (b"supernode-0." + DOMAIN + b"\nx.example.com",)),
    Target("docker-config", _docker_config, (ValueError,), (DOCKER_CONFIG,)),
    Target("reference", _reference, (InvalidReference,), NAMES),
    Target("registry-target", _target, (RequestError, InvalidReference), PATHS),
    Target("range", _range, (RangeError,), (b"bytes=0-9", b"bytes=-5", b"bytes=990-")),
    Target("journal", _journal, (), (disk._HEADER.pack(2 * PIECE_BYTES_CUT_MIN + 5, PIECE_BYTES_CUT_MIN) + RECORD,)),
    Target("verified-list", _verified, (), (f"{DIGEST} 1 2 -3\n".encode(),)),
    Target("kept-answer", _kept_answer, (), KEPT),
    Target("setting", _setting, (ValueError,), tuple(bytes([kind]) + text for kind, text in enumerate(SETTINGS))),
    Target("proxy-variables", _proxies, (UsageError,), (b"http://u:p@proxy.test:3128\n10.0.0.0/8,.test:443,*.a", b"[::1]:80\n*")),
    Target("insecure-registries", _listed, (), (b"registry.test:5000,https://other.test",)),
    Target("provider-answer", _provider_answer, (ProviderError,), (json.dumps(PROVIDER_ANSWER).encode(),)),
    Target("provider-config", _provider_config, (ProviderError,), (PROVIDER_CONFIG,)),
    Target("pull-secret", _pull_secret, (), (b"0" + DOCKER_CONFIG, b"1" + DOCKER_CONFIG[10:-1])),
    Target(
        "secret-object",
        _secret_object,
        (),
        (b'{"type": "kubernetes.io/dockercfg", "metadata": {"name": "a"}, "data": {".dockercfg": "e30="}}',),
    ),
    Target("admission-review", _review, (BadReview,), (json.dumps(REVIEW).encode(),)),
    Target("pod", _pod, (), (json.dumps(POD).encode(),)),
    Target("pauses", _pauses, (), (b'{"registry a": [1030, 1], "owner n/K/o": [1600, 3]}',)),
    Target("pull-failure", _failure, (), FAILURES),
)
