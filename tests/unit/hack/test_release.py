"""What hack/release.sh puts together, and what it says to somebody who uses it wrongly. The whole of it runs in tests/e2e."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hack.chart.helm import CHART, ROOT
from hack.origin.image import MANIFEST, sha256
from hack.release.changelog import changes
from hack.release.chart import described, pinned
from hack.release.layout import INDEX, INPUTS, Layout
from hack.release.sbom import bill, components, files_about_packages

VERSION = str(yaml.safe_load((CHART / "Chart.yaml").read_text())["version"])
DIGEST = sha256(b"an index")
CHANGELOG = """\
# Changelog

## [Unreleased]

### Added

- A thing that is
  not released.

## [1.2.3] - 2026-01-02

### Fixed

- A mistake.

### Known limits

- Some.
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        ([], 2, "say which version and which registry"),
        ([VERSION], 2, "say which version and which registry"),
        ([VERSION, "registry.example.com", "more"], 2, "say which version and which registry"),
        (["v1.2", "registry.example.com"], 2, "not v1.2"),
        ([VERSION, "https://registry.example.com"], 2, "without https://"),
        ([VERSION, "registry.example.com", "--force"], 2, "no option --force"),
        ([VERSION, "registry.example.com", "--output"], 2, "--output takes a directory"),
        (["99.0.0", "registry.example.com"], 1, "change it there first"),
        ([VERSION, "registry.example.com", "--push"], 1, "COSIGN_PRIVATE_KEY holds no key"),
    ],
)
def test_wrong_use_is_told_in_one_line(arguments: list[str], status: int, words: str) -> None:
    done = release(*arguments)
    (line,) = done.stderr.splitlines()
    assert line.startswith("release.sh: ")
    assert words in line
    assert (done.returncode, done.stdout) == (status, "")


def test_a_key_without_a_password_is_told_before_anything_is_built() -> None:
    done = release(VERSION, "registry.example.com", "--push", COSIGN_PRIVATE_KEY="a key")
    assert done.stderr == "release.sh: COSIGN_PASSWORD is not set; it is the password of COSIGN_PRIVATE_KEY\n"


def test_the_index_ties_the_architectures_together_and_says_what_it_was_made_from(tmp_path: Path) -> None:
    layout = written(tmp_path, {"arm64": [archive({})], "amd64": [archive({})]})
    digest = layout.tie("1.2.3", "what it was made from")
    index = layout.document(digest)
    assert index["mediaType"] == INDEX
    assert [manifest["platform"] for manifest in index["manifests"]] == [
        {"os": "linux", "architecture": "amd64"},
        {"os": "linux", "architecture": "arm64"},
    ]
    assert index["annotations"][INPUTS] == "what it was made from"
    assert sha256(layout.blob(digest).read_bytes()) == digest
    assert [architecture for architecture, _ in layout.images()] == ["amd64", "arm64"]
    again = written(tmp_path / "again", {"amd64": [archive({})], "arm64": [archive({})]})
    assert again.tie("1.2.3", "what it was made from") == digest


def test_a_bill_of_materials_is_valid_and_the_same_at_every_time(tmp_path: Path) -> None:
    layer = archive(
        {
            "var/lib/dpkg/status.d/libc6": "Package: libc6\nVersion: 2.36-9\nArchitecture: amd64\n",
            "opt/darner/lib/python3.11/site-packages/Some_Thing-1.0.dist-info/METADATA": "Name: Some_Thing\nVersion: 1.0\n",
            "opt/darner/lib/python3.11/site-packages/some_thing/METADATA": "Name: no package\nVersion: 1\n",
        }
    )
    layout = written(tmp_path, {"amd64": [layer]})
    layout.tie("1.2.3", "")
    ((_, digest),) = layout.images()
    text = bill(layout, digest, "1.2.3")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert sorted(component["purl"] for component in json.loads(text)["components"]) == [
        "pkg:deb/debian/libc6@2.36-9?arch=amd64",
        "pkg:pypi/some-thing@1.0",
    ]
    assert json.loads(text)["metadata"]["component"]["bom-ref"] == digest
    assert bill(layout, digest, "1.2.3") == text


def test_what_a_later_layer_takes_away_is_not_in_the_image(tmp_path: Path) -> None:
    about = {f"lib/{name}-1.dist-info/METADATA": f"Name: {name}\nVersion: 1\n" for name in ("kept", "removed", "hidden")}
    about["other/old-1.dist-info/METADATA"] = "Name: old\nVersion: 1\n"
    new = {"other/.wh..wh..opq": "", "other/new-1.dist-info/METADATA": "Name: new\nVersion: 1\n"}
    layers = [
        archive(about),
        archive({"lib/.wh.removed-1.dist-info": "", "lib/hidden-1.dist-info/.wh.METADATA": ""}),
        archive(new),
    ]
    paths = [tmp_path / str(number) for number in range(len(layers))]
    for path, layer in zip(paths, layers, strict=True):
        path.write_bytes(layer)
    assert sorted(component.name for component in components(files_about_packages(paths))) == ["kept", "new"]


def test_of_debians_own_list_only_what_is_installed_counts() -> None:
    installed = "Package: libc6\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"
    gone = "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\n"
    found = components({"var/lib/dpkg/status": f"{installed}\n{gone}"})
    assert [component.name for component in found] == ["libc6"]


def test_the_chart_is_pinned_to_the_image_and_every_other_word_of_its_values_stays() -> None:
    text = (CHART / "values.yaml").read_text()
    changed = pinned(text, "registry.example.com/darner-image", DIGEST)
    before, after = yaml.safe_load(text), yaml.safe_load(changed)
    assert after["image"] == {**before["image"], "repository": "registry.example.com/darner-image", "digest": DIGEST}
    assert {**after, "image": None} == {**before, "image": None}
    assert len([line for line in changed.splitlines() if line not in text.splitlines()]) == 2


def test_values_without_an_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no image\.repository"):
        pinned("other:\n  repository: x\n  digest: y\n", "r", DIGEST)


def test_artifact_hub_is_told_of_images_license_changes_and_prereleases() -> None:
    chart = described(
        {"name": "darner", "keywords": ["images"]}, "1.2.3", f"r/darner-image@{DIGEST}", ["amd64", "arm64"], CHANGELOG
    )
    assert (chart["version"], chart["appVersion"], chart["keywords"]) == ("1.2.3", "1.2.3", ["images"])
    told = {name.removeprefix("artifacthub.io/"): yaml.safe_load(value) for name, value in chart["annotations"].items()}
    assert all(isinstance(value, str) for value in chart["annotations"].values())
    assert told["images"] == [
        {"name": "darner", "image": f"r/darner-image@{DIGEST}", "platforms": ["linux/amd64", "linux/arm64"]}
    ]
    assert told["changes"] == [{"kind": "fixed", "description": "A mistake."}]
    assert told["license"] == "Apache-2.0"
    assert told["prerelease"] is False


def test_a_prerelease_has_the_changes_that_are_not_released_and_a_release_needs_a_section() -> None:
    assert changes(CHANGELOG, "2.0.0-rc.1") == [{"kind": "added", "description": "A thing that is not released."}]
    with pytest.raises(LookupError, match=r"no section \[2\.0\.0\]"):
        changes(CHANGELOG, "2.0.0")


def release(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    command = [str(ROOT / "hack" / "release.sh"), *arguments]
    return subprocess.run(command, env={"PATH": path, **environment}, capture_output=True, text=True, check=False)


def archive(files: Mapping[str, str]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            tar.addfile(entry, io.BytesIO(text.encode()))
    return content.getvalue()


def written(directory: Path, images: Mapping[str, list[bytes]]) -> Layout:
    """A layout as skopeo writes it: a manifest for each architecture, and no index yet."""
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    manifests = []
    for architecture, layers in images.items():
        configuration = json.dumps({"os": "linux", "architecture": architecture}).encode()
        config, described = {"digest": sha256(configuration)}, [{"digest": sha256(layer)} for layer in layers]
        manifest = json.dumps({"config": config, "layers": described}).encode()
        for content in (configuration, manifest, *layers):
            (blobs / sha256(content).partition(":")[2]).write_bytes(content)
        manifests.append({"mediaType": MANIFEST, "digest": sha256(manifest), "size": len(manifest)})
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return Layout(directory)
