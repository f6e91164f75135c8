"""The node's credential providers, asked by functions in place of programs, on a clock of the test's own."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.origin import credential_provider
from agent.origin.credential_config import PULL_SECONDS, Provider, ProviderError
from agent.origin.credential_provider import CredentialProviders
from agent.values.credential import Credential
from agent.values.errors import UsageError
from tests.endpoint import wait_until

V1 = "credentialprovider.kubelet.k8s.io/v1"
IMAGE = "a.example.com/team/app"
ALICE, BOB = Credential("alice", "s3cret"), Credential("bob", "s3cret")


def provider(name: str, *globs: str) -> Provider:
    return Provider(name, V1, globs or ("*.example.com",), (), {}, 300.0)


def says(username: str, scope: str = "Image") -> bytes:
    auth = {"*.example.com": {"username": username, "password": "s3cret"}}
    return json.dumps({"kind": "CredentialProviderResponse", "apiVersion": V1, "cacheKeyType": scope, "auth": auth}).encode()


class Asked:
    """Answers by the provider's name, and counts."""

    def __init__(self, **answers: bytes | Callable[[], bytes]) -> None:
        self.answers = answers
        self.images: list[tuple[str, str]] = []
        self.now = 0.0

    def __call__(self, which: Provider, image: str) -> bytes:
        self.images.append((which.name, image))
        answer = self.answers[which.name]
        return answer if isinstance(answer, bytes) else answer()

    def providers(self, *which: Provider) -> CredentialProviders:
        return CredentialProviders(which, self, lambda: self.now)


def test_every_provider_of_the_image_is_asked_and_no_other() -> None:
    asked = Asked(one=says("alice"), two=says("bob"), other=says("carol"))
    providers = asked.providers(provider("one"), provider("two", "a.example.com"), provider("other", "b.example.com"))
    assert providers.credentials(IMAGE) == [ALICE, BOB]
    assert sorted(asked.images) == [("one", IMAGE), ("two", IMAGE)]
    assert providers.serve("b.example.com/x")
    assert not providers.serve("example.org/x")


def test_a_provider_is_asked_again_when_its_answer_is_old() -> None:
    """FAULTS 76."""
    asked = Asked(one=says("alice", "Registry"))
    providers = asked.providers(provider("one"))
    for now, image, times in ((0.0, "x", 1), (299.0, "x", 1), (299.0, "y", 1), (301.0, "y", 2), (602.0, "x", 3)):
        asked.now = now
        assert providers.credentials(f"a.example.com/{image}") == [ALICE]
        assert len(asked.images) == times
    assert PULL_SECONDS < 300.0


def test_one_that_fails_takes_nothing_from_the_others_and_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 76."""

    def fail() -> bytes:
        raise ProviderError("it ended with status 1")

    asked = Asked(broken=fail, garbage=b"s3cret, but no answer", two=says("bob"))
    providers = asked.providers(provider("broken"), provider("garbage"), provider("two"))
    for _ in range(2):
        assert providers.credentials(IMAGE) == [BOB]
    assert sorted(name for name, _ in asked.images) == ["broken", "broken", "garbage", "garbage", "two"]
    assert "broken has nothing for a.example.com/team/app: it ended with status 1" in caplog.text
    assert "s3cret" not in caplog.text


def test_those_who_ask_the_same_at_once_share_one_run() -> None:
    """FAULTS 76."""
    go = threading.Event()

    def slowly() -> bytes:
        go.wait(10)
        return says("alice")

    asked = Asked(one=slowly)
    providers = asked.providers(provider("one"))
    found: list[list[Credential]] = []
    threads = [threading.Thread(target=lambda: found.append(providers.credentials(IMAGE))) for _ in range(8)]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(asked.images) == 1)
    go.set()
    for thread in threads:
        thread.join()
    assert found == [[ALICE]] * 8
    assert len(asked.images) == 1


def test_a_slow_one_is_waited_for_a_while_and_what_it_says_later_is_there_for_the_next_pull(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """FAULTS 76."""
    monkeypatch.setattr(credential_provider, "WAIT_SECONDS_MAX", 0.2)
    go = threading.Event()

    def slowly() -> bytes:
        go.wait(10)
        return says("alice")

    asked = Asked(slow=slowly, two=says("bob"))
    providers = asked.providers(provider("slow"), provider("two"))
    assert providers.credentials(IMAGE) == [BOB]
    assert "goes on without the credential provider slow" in caplog.text
    go.set()
    wait_until(lambda: not providers._runs)
    assert providers.credentials(IMAGE) == [ALICE, BOB]
    assert [name for name, _ in asked.images].count("slow") == 1


def test_so_many_programs_run_at_once_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_provider, "WAIT_SECONDS_MAX", 0.0)
    go = threading.Event()

    def slowly() -> bytes:
        go.wait(10)
        return says("alice")

    asked = Asked(slow=slowly)
    providers = asked.providers(provider("slow"))
    for number in range(credential_provider.RUNS_MAX + 5):
        assert providers.credentials(f"a.example.com/{number}") == []
    wait_until(lambda: len(asked.images) == credential_provider.RUNS_MAX)
    go.set()
    wait_until(lambda: not providers._runs)
    assert len(asked.images) == credential_provider.RUNS_MAX


def configuration(name: str, **more: object) -> str:
    item = {"name": name, "apiVersion": V1, "matchImages": ["*.example.com"], "defaultCacheDuration": "1h", **more}
    return json.dumps({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [item]})


def test_a_run_for_which_no_thread_is_left_is_made_by_a_later_pull(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(one=says("alice"))
    providers = asked.providers(provider("one"))

    def exhausted(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", exhausted)
        for _ in range(2 * credential_provider.RUNS_MAX):
            assert providers.credentials(IMAGE) == []
    assert providers.credentials(IMAGE) == [ALICE]


def test_a_directory_of_configurations_is_read_in_the_order_of_its_names(tmp_path: Path) -> None:
    for file, name in (("b.yaml", "second"), ("a.json", "first"), ("notes.txt", "none")):
        (tmp_path / file).write_text(configuration(name))
    providers = CredentialProviders.of_node(str(tmp_path), "/plugins")
    assert [provider.name for provider in providers._providers] == ["first", "second"]


def test_token_attributes_are_refused_with_the_reason_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """FAULTS 76."""
    (tmp_path / "config").write_text(configuration("cloud", tokenAttributes={"serviceAccountTokenAudience": "cloud"}))
    providers = CredentialProviders.of_node(str(tmp_path / "config"), "/plugins")
    assert not providers.serve(IMAGE)
    assert providers.credentials(IMAGE) == []
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "cloud is not used: tokenAttributes" in record.getMessage()


@pytest.mark.parametrize("text", [None, "", "{}", configuration("a/b"), " " * (1 << 20) + "{}"])
def test_a_configuration_that_cannot_be_used_is_said_once_and_the_agent_serves_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str | None
) -> None:
    if text is not None:
        (tmp_path / "config").write_text(text)
    assert not CredentialProviders.of_node(str(tmp_path / "config"), "/plugins").serve(IMAGE)
    assert ["no credential provider is used" in record.getMessage() for record in caplog.records] == [True]


def test_two_providers_of_one_name_are_none(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for file in ("a.json", "b.json"):
        (tmp_path / file).write_text(configuration("same"))
    assert not CredentialProviders.of_node(str(tmp_path), "/plugins").serve(IMAGE)
    assert "two providers have one name" in caplog.text


def test_the_two_settings_go_together() -> None:
    assert CredentialProviders.of_node("", "") is None
    for pair in (("/config", ""), ("", "/plugins")):
        with pytest.raises(UsageError, match="go together"):
            CredentialProviders.of_node(*pair)
