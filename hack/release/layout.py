"""An image for several architectures as an OCI layout on disk (OCI image specification 1.1, "Image Layout" and "Image Index").

    python -m hack.release.layout tie DIRECTORY VERSION INPUTS     # prints the digest of the index
    python -m hack.release.layout list DIRECTORY                   # prints architecture and digest of each image

skopeo has put one manifest for each architecture into the layout. `tie` ties them together in an index and tags that with the
version, in place of the manifests. INPUTS says what the image was made from: by that, and not by its bytes, the same
release is known again, since an image that is built twice has other times in it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hack.origin.image import sha256

INDEX = "application/vnd.oci.image.index.v1+json"
INPUTS = "dev.darner.inputs"
"""The annotation of the index that holds them."""
_TAG = "org.opencontainers.image.ref.name"


class Layout:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._top = directory / "index.json"

    def blob(self, digest: str) -> Path:
        return self._directory / "blobs" / digest.replace(":", "/")

    def document(self, digest: str) -> Any:
        """A manifest, an index or an image's configuration."""
        return json.loads(self.blob(digest).read_bytes())

    def tie(self, version: str, inputs: str) -> str:
        """Makes the index; its digest. The same manifests, version and inputs give the same one."""
        manifests = []
        for found in json.loads(self._top.read_bytes())["manifests"]:
            platform = self._platform(found["digest"])
            manifests.append(
                {"mediaType": found["mediaType"], "digest": found["digest"], "size": found["size"], "platform": platform}
            )
        manifests.sort(key=lambda manifest: manifest["platform"]["architecture"])
        annotations = {"org.opencontainers.image.version": version, INPUTS: inputs}
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests, "annotations": annotations}
        content = json.dumps(index, separators=(",", ":")).encode()
        digest = sha256(content)
        self.blob(digest).write_bytes(content)
        tagged = {"mediaType": INDEX, "digest": digest, "size": len(content), "annotations": {_TAG: version}}
        self._top.write_text(json.dumps({"schemaVersion": 2, "manifests": [tagged]}))
        return digest

    def images(self) -> Iterator[tuple[str, str]]:
        """Architecture and manifest digest of each image that the index ties together."""
        (tagged,) = json.loads(self._top.read_bytes())["manifests"]
        for manifest in self.document(tagged["digest"])["manifests"]:
            yield manifest["platform"]["architecture"], manifest["digest"]

    def _platform(self, digest: str) -> dict[str, str]:
        configuration = self.document(self.document(digest)["config"]["digest"])
        return {"os": configuration["os"], "architecture": configuration["architecture"]}


if __name__ == "__main__":
    verb, directory, *rest = sys.argv[1:]
    if verb == "tie":
        print(Layout(Path(directory)).tie(*rest))
    else:
        print(*(f"{architecture} {digest}" for architecture, digest in Layout(Path(directory)).images()), sep="\n")
