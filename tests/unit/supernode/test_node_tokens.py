"""Tokens that show which node an agent is: those of the cluster, for this channel, of this account and node; and no others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest

from agent.values.errors import UsageError
from supernode.node_tokens import AUDIENCE, CLOCK_SECONDS_MAX, NodeTokens, Proven, TokenError
from tests.node_tokens import CURVE, OTHER, RSA, jwks, named, token


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "node-keys"
    file.write_text(jwks(one=RSA, two=CURVE))
    return file


@pytest.fixture
def tokens(file: Path) -> NodeTokens:
    return NodeTokens(str(file), "darner-system/darner-agent")


def now() -> int:
    return int(time.time())


def refusal(tokens: NodeTokens, shown: str, node: str = "n1") -> str:
    with pytest.raises(TokenError) as refused:
        tokens.check(shown, node)
    words = str(refused.value)
    assert "\n" not in words
    assert not shown or shown not in words
    return words


def test_a_token_of_the_agents_account_on_the_node_that_it_names_is_believed(tokens: NodeTokens) -> None:
    for shown in (token(iat=1_700_000_000), token(CURVE, "two", "ES256", iat=1_700_000_000)):
        assert tokens.check(shown, "n1") == Proven("p1", 1_700_000_000)


def test_another_nodes_token_is_not(tokens: NodeTokens) -> None:
    """FAULTS 81."""
    assert refusal(tokens, token(), "n2") == "its token is of another node than the one that it names"


def signed_by_nobody() -> str:
    return jwt.encode({"aud": AUDIENCE, "exp": now() + 60, "iat": now()}, None, "none", headers={"kid": "one"})


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: "", "proves nothing"),
        (lambda: "a.b.c", "proves nothing"),
        (lambda: "x" * 16384, "proves nothing"),
        (lambda: token(OTHER), "proves nothing"),
        (lambda: token(OTHER, "three"), "none of the cluster's"),
        (lambda: token(b"k" * 32, "one", "HS256"), "proves nothing"),
        (signed_by_nobody, "proves nothing"),
        (lambda: token(aud=["https://kubernetes.default.svc"]), "proves nothing"),
        (lambda: token(exp=now() - CLOCK_SECONDS_MAX - 10), "has expired, or is not good yet"),
        (lambda: token(nbf=now() + CLOCK_SECONDS_MAX + 60), "has expired, or is not good yet"),
        (lambda: token(exp="soon"), "a time that is none"),
        (lambda: token(**{"kubernetes.io": named(namespace="default")}), "not of the agents' service account"),
        (lambda: token(**{"kubernetes.io": named(serviceaccount={"name": "default"})}), "not of the agents' service account"),
        (lambda: token(**{"kubernetes.io": named(node=None)}), "another node"),
        (lambda: token(**{"kubernetes.io": "n1"}), "not of the agents' service account"),
        (lambda: token(**{"kubernetes.io": None}), "not of the agents' service account"),
    ],
    ids=range(16),
)
def test_what_is_no_such_token_is_refused_in_words_that_do_not_show_it(
    tokens: NodeTokens, made: Callable[[], str], why: str
) -> None:
    """Made in the test: a token that was made when tests were collected has grown old by then."""
    assert why in refusal(tokens, made())


@pytest.mark.parametrize("ahead", [-400, 400])
def test_a_clock_that_is_400_s_off_disturbs_nobody(tokens: NodeTokens, ahead: int) -> None:
    assert tokens.check(token(iat=now() + ahead, nbf=now() + ahead, exp=now() + ahead + 600), "n1")


def test_the_clusters_keys_change_without_a_restart(tokens: NodeTokens, file: Path) -> None:
    assert tokens.check(token(), "n1")
    file.write_text(jwks(three=OTHER))
    os.utime(file, ns=(1, 1))
    assert "none of the cluster's" in refusal(tokens, token())
    assert tokens.check(token(OTHER, "three"), "n1")


@pytest.mark.parametrize("content", ["", "[]", '{"keys": []}', '{"keys": [{}]}', "{", None])
def test_without_keys_nobody_is_believed_and_the_reason_names_the_file(
    tokens: NodeTokens, file: Path, content: str | None
) -> None:
    if content is None:
        file.unlink()
    else:
        file.write_text(content)
    assert str(file) in refusal(tokens, token()) or content == '{"keys": []}'


@pytest.mark.parametrize("account", ["", "darner-agent", "/a", "a/"])
def test_what_is_no_account_is_one_clear_line(account: str) -> None:
    with pytest.raises(UsageError, match=r"^--node-token-account .* is no service account; write NAMESPACE/NAME$"):
        NodeTokens("/keys", account)
