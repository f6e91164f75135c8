"""What the targets have open is closed when their tests are over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz import servers


@pytest.fixture(scope="package", autouse=True)
def _closed() -> Iterator[None]:
    yield
    servers.close()
