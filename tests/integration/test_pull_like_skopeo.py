"""What `darner pull` writes is what skopeo makes of the same image, and skopeo reads it."""

from __future__ import annotations

import gzip
import json
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.origin import Image, Origin
from hack.origin.image import CONFIG, LAYER, MANIFEST, sha256
from tests.archives import INDEX_TYPE, index_of
from tests.endpoint import REPOSITORY, Endpoint
from tests.origins import Authority
from tests.swarm import noise
from tests.unit.cli.typed import typed_with


def compressed(*layers: bytes) -> Image:
    """An image as builders push it: layers compressed by gzip, and a config that names them as they are."""
    packed = [gzip.compress(layer, mtime=0) for layer in layers]
    rootfs = {"type": "layers", "diff_ids": [sha256(layer) for layer in layers]}
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).encode()
    described = [{"mediaType": LAYER + "+gzip", "digest": sha256(layer), "size": len(layer)} for layer in packed]
    head = {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)}
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": head, "layers": described}
    return Image(json.dumps(manifest).encode(), {sha256(blob): blob for blob in (config, *packed)})


def a_tar(number: int, path: Path) -> bytes:
    (path / "file").write_bytes(noise(200_000, number))
    with tarfile.open(path / "layer.tar", "w") as tar:
        tar.add(path / "file", f"file-{number}")
    return (path / "layer.tar").read_bytes()


@pytest.fixture
def origins(tmp_path: Path) -> Iterator[tuple[Origin, Origin]]:
    """The same image for two platforms at two registries: over HTTP, as the lab's agents ask, and over TLS, for skopeo."""
    authority = Authority(tmp_path, "ca")
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.crt").write_bytes(authority.file.read_bytes())
    image, other = compressed(a_tar(1, tmp_path), a_tar(2, tmp_path)), compressed(a_tar(3, tmp_path))
    index = Image(index_of({"linux/amd64": image, "linux/arm64": other}), {}, INDEX_TYPE)
    with Origin() as plain, Origin(tls=authority.server("localhost")) as sealed:
        for origin in (plain, sealed):
            for tag, pushed in {"amd64": image, "arm64": other, "1": index}.items():
                origin.push(REPOSITORY, tag, pushed)
        yield plain, sealed


def test_what_darner_pulls_is_what_skopeo_copies(
    tmp_path: Path, origins: tuple[Origin, Origin], capsys: pytest.CaptureFixture[str]
) -> None:
    plain, sealed = origins
    source = f"docker://localhost:{sealed.address.rpartition(':')[2]}/{REPOSITORY}:1"
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    certificates = f"--src-cert-dir={tmp_path / 'certificates'}"
    skopeo("copy", certificates, source, f"oci:{theirs}:1")
    skopeo("copy", certificates, source, f"docker-archive:{theirs}.tar:team/app:1")
    typed, name = typed_with(capsys), f"{plain.address}/{REPOSITORY}:1"
    with Endpoint(tmp_path / "store", plain) as endpoint:
        for options in (["-o", str(ours)], ["-o", f"{ours}.tar", "--format", "docker"], ["-o", f"{ours}-oci.tar"]):
            agent = ["--agent", str(endpoint.listener.address), "--platform", "linux/amd64"]
            assert typed("pull", name, *options, *agent)[0] == 0
    blobs = [sorted(path.name for path in (root / "blobs" / "sha256").iterdir()) for root in (ours, theirs)]
    assert blobs[0] == blobs[1]
    digests = [json.loads((root / "index.json").read_text())["manifests"][0]["digest"] for root in (ours, theirs)]
    assert digests[0] == digests[1]
    saved = [json.loads(member(Path(f"{root}.tar"), "manifest.json"))[0] for root in (ours, theirs)]
    assert [saved[0][key] for key in ("Config", "Layers")] == [saved[1][key] for key in ("Config", "Layers")]
    for layer in saved[0]["Layers"]:
        assert member(Path(f"{ours}.tar"), layer) == member(Path(f"{theirs}.tar"), layer)
    again = [f"oci:{ours}:{name}", f"oci-archive:{ours}-oci.tar:{name}", f"docker-archive:{ours}.tar"]
    configs = {skopeo("inspect", "--config", "--raw", where) for where in again}
    assert len(configs) == 1, "skopeo reads each of them as the same image"


def skopeo(*arguments: str) -> str:
    command = ["skopeo", "--insecure-policy", "--override-os=linux", "--override-arch=amd64", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def member(archive: Path, name: str) -> bytes:
    with tarfile.open(archive) as tar:
        file = tar.extractfile(name)
        assert file
        return file.read()
