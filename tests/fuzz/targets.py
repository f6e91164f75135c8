"""All parsers that strangers reach: one table, for the short run with the other tests and for `make fuzz` (hack/fuzz)."""

from __future__ import annotations

from tests.fuzz import documents, registries, servers
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {target.name: target for target in (*servers.TARGETS, *registries.TARGETS, *documents.TARGETS)}
