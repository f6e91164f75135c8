"""An origin registry in pure Python, for the demo and for tests.

    with Origin() as origin:
        image = origin.push("team/app", "1.0", Image.of([b"one layer", b"another"]))
        origin.fail(Fault(path="/blobs/", status=429, headers={"Retry-After": "1"}), times=2)
        ...                             # talk to origin.address
        assert origin.blob_bytes_sent == image.size

It counts the blob bytes that it sent, logs each request that it answered, and breaks in every way that it is asked to. It is
the pull half of the OCI distribution specification 1.1 and no more: images are pushed by a method call, never over HTTP.
"""

from hack.origin.access import Access
from hack.origin.faults import Fault
from hack.origin.image import Image, sha256
from hack.origin.server import Origin, Request

__all__ = ["Access", "Fault", "Image", "Origin", "Request", "sha256"]
