"""FAULTS 79: a private authority and a client certificate are used for one registry alone, in questions and in blobs."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from agent.config import load
from agent.origin.client import Origin as Client
from agent.origin.mirrors import mirror
from agent.origin.tls import RegistryTls, TlsFiles, tls_files
from agent.settings import AgentSettings
from agent.values.errors import OriginError, UsageError
from hack.origin import Fault, Image, Origin
from tests.origins import Authority, drain, look_up

REPOSITORY = "team/app"
LAYER = b"layer" * 100_000
IMAGE = Image.of([LAYER])
NAMES = look_up(registry_test="127.0.0.1", other_test="127.0.0.1")


class Site:
    """Two authorities, of servers and of clients, and the directory of one registry's files."""

    def __init__(self, root: Path) -> None:
        self.servers, self.clients = Authority(root, "servers"), Authority(root, "clients")
        self.files = root / "files"
        self.files.mkdir()

    def trust(self) -> None:
        self._put("ca.crt", self.servers.file.read_bytes())

    def identify(self, authority: Authority | None = None) -> None:
        certificate, key = (authority or self.clients).certificate("node")
        self._put("tls.crt", certificate)
        self._put("tls.key", key)

    def _put(self, name: str, content: bytes) -> None:
        """As a kubelet puts a Secret's new content in place of the old: another file by the same name."""
        new = self.files / f".{name}"
        new.write_bytes(content)
        os.replace(new, self.files / name)

    @contextmanager
    def registry(self, name: str = "registry.test", *, asks: bool = True) -> Iterator[Origin]:
        """One that has its certificate from the private authority, and asks for a client's."""
        with Origin(tls=self.servers.server(name, clients=self.clients if asks else None)) as origin:
            origin.push(REPOSITORY, "1", IMAGE)
            yield origin

    def client(self, *origins: Origin, files_of: str = "registry.test") -> Client:
        """It has the files for the first of the origins, by that name."""
        listed = [f"https://{at(origin, host)}" for origin in origins for host in ("registry.test", "other.test")]
        return Client(listed, [], NAMES, registry_tls=[TlsFiles(at(origins[0], files_of), self.files)])


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def at(origin: Origin, host: str = "registry.test") -> str:
    return f"{host}:{origin.address.partition(':')[2]}"


def pull(client: Client, registry: str) -> None:
    """A small question and a big body: two clients over one way out."""
    assert client.manifest(registry, REPOSITORY, "1", None).digest == IMAGE.digest
    assert client.digest_of(registry, REPOSITORY, "1", None) == IMAGE.digest
    stream = client.open_blob(registry, REPOSITORY, IMAGE.layers[0], None)
    assert drain(stream.read_into) == LAYER
    stream.close()


def refused(client: Client, registry: str) -> None:
    for ask in (
        lambda: client.manifest(registry, REPOSITORY, "1", None),
        lambda: client.open_blob(registry, REPOSITORY, IMAGE.layers[0], None),
    ):
        with pytest.raises(OriginError) as failed:
            ask()
        assert failed.value.status == 502


def test_a_registry_with_a_private_authority_that_asks_for_a_client_certificate_is_pulled_from(site: Site) -> None:
    site.trust()
    site.identify()
    with site.registry() as origin:
        pull(site.client(origin), at(origin))


@pytest.mark.parametrize("has", ["ca.crt", "client certificate"])
def test_without_the_other_half_it_is_not(site: Site, has: str) -> None:
    if has == "ca.crt":
        site.trust()
    else:
        site.identify()
    with site.registry() as origin:
        refused(site.client(origin), at(origin))
        assert not origin.requests


def test_a_client_certificate_of_another_authority_is_refused(site: Site, tmp_path: Path) -> None:
    site.trust()
    site.identify(Authority(tmp_path, "strangers"))
    with site.registry() as origin:
        refused(site.client(origin), at(origin))


def test_what_is_one_registrys_is_no_others_not_even_at_the_same_address_or_under_the_same_name(site: Site) -> None:
    site.trust()
    site.identify()
    with site.registry() as first, site.registry() as same_name, site.registry("other.test", asks=False) as other:
        client = site.client(first, same_name, other)
        pull(client, at(first))
        refused(client, at(same_name))  # another port
        refused(client, at(other, "other.test"))
        assert not same_name.requests
        assert not other.requests


def test_a_redirect_takes_neither_along(site: Site) -> None:
    """Where blobs are elsewhere, that server proves itself by the authorities of the system."""
    site.trust()
    site.identify()
    with site.registry() as origin, site.registry("other.test", asks=False) as store:
        origin.fail(Fault(path="/blobs/", status=307, headers={"Location": f"https://{at(store, 'other.test')}/v2/x"}))
        client = site.client(origin, store)
        with pytest.raises(OriginError, match="certificate of 127"):
            client.open_blob(at(origin), REPOSITORY, IMAGE.layers[0], None)
        assert not store.requests


def test_a_mirror_has_files_of_its_own(site: Site) -> None:
    site.trust()
    site.identify()
    with site.registry() as cache, Origin() as registry:
        cache.push(f"hub/{REPOSITORY}", "1", IMAGE)
        mirrors = [mirror(f"{registry.address}=https://{at(cache)}/hub")]
        client = Client([registry.address], [], NAMES, mirrors=mirrors, registry_tls=[TlsFiles(at(cache), site.files)])
        pull(client, registry.address)
        assert not registry.requests


def test_files_that_change_are_read_anew(site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    site.trust()
    site.identify(Authority(tmp_path, "expired"))
    with site.registry() as origin:
        client = site.client(origin)
        refused(client, at(origin))
        site.identify()
        pull(client, at(origin))
        with caplog.at_level(logging.ERROR):
            (site.files / "tls.key").unlink()
            pull(client, at(origin))
            pull(client, at(origin))
        assert [record.message for record in caplog.records] == [
            f"--registry-tls {at(origin)}={site.files}: tls.key is missing; tls.crt and tls.key go together; it stays as it was"
        ]
        site.identify()
        pull(client, at(origin))


@pytest.mark.parametrize("has_files", [False, True], ids=["for all", "beside its own"])
def test_authorities_for_all_registries_that_change_are_read_anew(
    site: Site, tmp_path: Path, caplog: pytest.LogCaptureFixture, has_files: bool
) -> None:
    site.identify()
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes(Authority(tmp_path, "strangers").file.read_bytes())

    def put(content: bytes) -> None:
        (tmp_path / "new").write_bytes(content)
        (tmp_path / "new").replace(authorities)

    with site.registry(asks=has_files) as origin:
        own = [TlsFiles(at(origin), site.files)] if has_files else []
        client = Client([f"https://{at(origin)}"], [str(authorities)], NAMES, registry_tls=own)
        refused(client, at(origin))
        put(site.servers.file.read_bytes())
        pull(client, at(origin))
        with caplog.at_level(logging.ERROR):
            put(b"no certificate")
            pull(client, at(origin))
        assert all("put certificates in PEM there" in record.message for record in caplog.records)
        assert caplog.records
        put(Authority(tmp_path, "others").file.read_bytes())
        client.close()
        refused(Client([f"https://{at(origin)}"], [str(authorities)], NAMES, registry_tls=own), at(origin))


def test_verification_is_never_switched_off(site: Site) -> None:
    site.identify()
    for context in (RegistryTls(), RegistryTls((), [TlsFiles("registry.test", site.files)])):
        found = context.context("registry.test", 443)
        assert found.check_hostname
        assert found.verify_mode.name == "CERT_REQUIRED"


def test_docker_hub_is_meant_by_its_name(site: Site) -> None:
    site.trust()
    tls = RegistryTls((), [tls_files(f"docker.io={site.files}")])
    assert tls.context("registry-1.docker.io", 443) is not tls.context("auth.docker.io", 443)


def _nothing(site: Site) -> None:
    site.files.rmdir()


def _no_pem(site: Site) -> None:
    (site.files / "ca.crt").write_text("no certificate")


def _no_key(site: Site) -> None:
    site.identify()
    (site.files / "tls.key").unlink()


def _no_certificate(site: Site) -> None:
    site.identify()
    (site.files / "tls.crt").unlink()


def _other_key(site: Site) -> None:
    site.identify()
    kept = (site.files / "tls.crt").read_bytes()
    site.identify()
    (site.files / "tls.crt").write_bytes(kept)


def _encrypted_key(site: Site) -> None:
    site.identify()
    key = site.files / "tls.key"
    plain = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"x")
    key.write_bytes(plain.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))


def _directory(site: Site) -> None:
    (site.files / "ca.crt").mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_nothing, "nothing is found there; put ca.crt there, or tls.crt and tls.key, or all three"),
        (_no_pem, "ca.crt cannot be used, put certificates in PEM there"),
        (_directory, "ca.crt cannot be used, put certificates in PEM there"),
        (_no_key, "tls.key is missing; tls.crt and tls.key go together"),
        (_no_certificate, "tls.crt is missing; tls.crt and tls.key go together"),
        (
            _other_key,
            "tls.crt and tls.key cannot be used, put there a certificate and its own key in PEM, .*: the key is another",
        ),
        (_encrypted_key, "tls.crt and tls.key cannot be used, put there .* the key not encrypted"),
    ],
)
def test_files_that_cannot_be_used_are_one_clear_line_at_the_start(site: Site, spoil: object, words: str) -> None:
    spoil(site)  # type: ignore[operator]
    with pytest.raises(UsageError, match=f"--registry-tls registry.test={site.files}: {words}") as said:
        RegistryTls((), [tls_files(f"registry.test={site.files}")])
    assert "\n" not in str(said.value)


def test_a_setting_that_is_none_is_refused_by_name() -> None:
    arguments = ["--node-name", "n", "--store", "/s", "--registry-tls", "registry.test"]
    with pytest.raises(UsageError, match=r"--registry-tls: 'registry\.test' is not understood; write REGISTRY=DIRECTORY"):
        load(AgentSettings, "darner agent", arguments, {})
