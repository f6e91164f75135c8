"""What hack/release.sh has published and everything here is installed from: signed, complete, and never replaced."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import yaml

from hack.cluster import images
from hack.cluster.origin import NAME, OPEN
from tests.e2e.published import IMAGE, Published, cosign
from tests.e2e.release import Release
from tests.e2e.space import container_images


def test_every_pod_of_darner_runs_the_released_image_by_its_digest(darner: Release, published: Published) -> None:
    pods = [pod for component in ("agent", "supernode", "webhook") for pod in darner.pods(component)]
    assert {image for pod in pods for image in container_images(pod)} == {published.image}


def test_image_and_chart_are_signed_with_the_key_of_the_release_and_no_other(published: Published, tmp_path: Path) -> None:
    published.run([cosign(), "generate-key-pair", "--output-key-prefix", tmp_path / "other"])
    for reference in (published.image, published.chart.removeprefix("oci://")):
        done = published.verify(reference)
        assert done.returncode == 0, done.stderr
        assert reference.partition("@")[2] in done.stdout
        assert published.verify(reference, tmp_path / "other.pub").returncode != 0


def test_an_image_with_one_byte_flipped_is_not_verified_not_even_with_the_signature_of_the_right_one(
    published: Published, tmp_path: Path
) -> None:
    index = published.run(["skopeo", "inspect", "--raw", f"docker://{published.image}"]).encode()
    at = index.index(published.version.encode())
    flipped = index[:at] + bytes([index[at] ^ 1]) + index[at + 1 :]
    tag = f"{published.version}-flipped"
    digest = published.put(f"darner-image/manifests/{tag}", flipped)
    assert published.verify(f"{IMAGE}:{tag}").returncode != 0
    # A registry keeps signatures by the digest that they are of; whoever may write to it can put one beside another image.
    right = published.image.partition("@")[2]
    signatures = published.run(["skopeo", "inspect", "--raw", f"docker://{IMAGE}:{right.replace(':', '-')}"]).encode()
    published.put(f"darner-image/manifests/{digest.replace(':', '-')}", signatures)
    refused = published.verify(f"{IMAGE}@{digest}")
    assert refused.returncode != 0
    assert published.verify(published.image).returncode == 0


def test_a_second_run_changes_nothing_and_says_so(published: Published) -> None:
    before = {name: published.tags(name) for name in ("darner", "darner-image")}
    image, chart = published.image, published.chart
    published.publish()
    assert "nothing had to be changed" in published.said
    assert (published.image, published.chart) == (image, chart)
    assert {name: published.tags(name) for name in before} == before


def test_a_version_that_is_there_and_is_something_else_is_not_replaced(published: Published) -> None:
    version = f"{published.version}.taken"
    other = images.busybox()
    images.push(other, f"{published.cluster.layout.origin.address}:{OPEN}", "darner-image", version)
    done = published.release(version)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "a version is released once" in line
    assert json.loads(published.run(["skopeo", "inspect", f"docker://{IMAGE}:{version}"]))["Digest"] == other.digest


def test_the_chart_names_the_image_for_helm_and_for_artifact_hub(published: Published) -> None:
    with tarfile.open(published.package) as package:
        files = {entry.name: package.extractfile(entry) for entry in package if entry.isfile()}
        about, values = (yaml.safe_load(files[f"darner/{name}"] or io.BytesIO()) for name in ("Chart.yaml", "values.yaml"))
    assert about["version"] == about["appVersion"] == published.version
    (image,) = yaml.safe_load(about["annotations"]["artifacthub.io/images"])
    assert image["image"] == published.image
    assert image["image"] == f"{values['image']['repository']}@{values['image']['digest']}"


def test_the_bill_of_materials_lists_packages_of_debian_and_of_python_and_is_signed(published: Published) -> None:
    (path,) = published.package.parent.glob("*-amd64.cdx.json")
    bill = json.loads(path.read_text())
    urls = {component["purl"].partition("@")[0] for component in bill["components"]}
    assert {"pkg:deb/debian/libc6", "pkg:deb/debian/python3.11", "pkg:pypi/darner", "pkg:pypi/h11"} <= urls
    image = bill["metadata"]["component"]["bom-ref"]
    published.run([*published.verifying("verify-attestation"), "--type", "cyclonedx", f"{IMAGE}@{image}"])


def test_the_checksums_are_those_of_all_that_was_made(published: Published) -> None:
    listed = published.run(["bash", "-c", 'cd "$1" && sha256sum --check SHA256SUMS', "bash", published.package.parent])
    made = {path for path in published.package.parent.rglob("*") if path.is_file() and path.name != "SHA256SUMS"}
    assert len(listed.splitlines()) == len(made)
    assert NAME in published.image
