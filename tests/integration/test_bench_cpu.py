"""What bytes cost is measured of processes that really move them."""

from __future__ import annotations

import os
from dataclasses import astuple
from pathlib import Path

import pytest

from hack.bench.client import Client, ClientError
from hack.bench.cpu import measure
from hack.bench.nginx import REPOSITORY, Nginx
from hack.lab import Lab
from hack.origin import Image


@pytest.mark.parametrize("receives", [False, True])
def test_the_client_takes_all_of_a_body_one_after_the_other_and_nothing_but_a_success(tmp_path: Path, receives: bool) -> None:
    (tmp_path / "layer").write_bytes(os.urandom(3 << 20))
    image = Image.of([tmp_path / "layer", b"small"])
    with Lab() as lab:
        nginx = Nginx(lab.loopback("nginx"), image)
        with Client(nginx.address, receives=receives) as client:
            assert [client.take(f"/v2/{REPOSITORY}/blobs/{digest}") for digest in image.layers] == [3 << 20, 5]
            with pytest.raises(ClientError, match="404"):
                client.take(f"/v2/{REPOSITORY}/blobs/none")


def test_every_way_that_bytes_go_has_its_cost_and_something_beside_it() -> None:
    for cost in astuple(measure(rounds=1, blob_bytes=64 << 20)):
        seconds, beside, ratio, ratios = cost
        assert seconds > 0
        assert beside > 0
        assert ratios == (ratio,)
        assert ratio == pytest.approx(seconds / beside)
