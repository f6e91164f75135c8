"""The swarm's Secret: a key that is made once, and the cluster's public keys as the API server tells them now."""

from __future__ import annotations

import json
from typing import Any

import pytest

from webhook.kube.api import ApiAnswer
from webhook.server import NODE_KEYS_FILE, SWARM_KEY_FILE, with_node_keys, with_swarm_key

JWKS = {"keys": [{"kid": "one", "kty": "RSA"}]}


class Answering:
    def __init__(self, status: int, document: dict[str, Any]) -> None:
        self.asked: list[str] = []
        self._answer = ApiAnswer(status, document)

    def ask(self, method: str, path: str, *_: Any, **__: Any) -> ApiAnswer:
        self.asked.append(f"{method} {path}")
        return self._answer

    def watch(self, *_: Any) -> Any:
        raise AssertionError("nothing is watched")


def test_the_key_is_made_once_and_the_clusters_keys_are_beside_it() -> None:
    api = Answering(200, JWKS)
    first = with_node_keys(with_swarm_key(None), api)
    assert json.loads(first[NODE_KEYS_FILE]) == JWKS
    assert len(first[SWARM_KEY_FILE]) == 64
    assert with_node_keys(with_swarm_key(first), api) == first
    assert set(api.asked) == {"GET /openid/v1/jwks"}


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_where_the_api_server_does_not_tell_its_keys_those_of_before_stay_and_every_pod_can_start(status: int) -> None:
    api = Answering(status, {})
    assert json.loads(with_node_keys({SWARM_KEY_FILE: b"k"}, api)[NODE_KEYS_FILE]) == {"keys": []}
    kept = {SWARM_KEY_FILE: b"k", NODE_KEYS_FILE: b"those of before"}
    assert with_node_keys(kept, api) == kept
