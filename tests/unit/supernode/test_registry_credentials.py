"""The operator's credentials: which of them are tried for which image, when, and what becomes of a file that is none."""

from __future__ import annotations

import base64
import json
import logging
from pathlib import Path

import pytest

from agent.values.credential import Credential
from agent.values.errors import OriginError
from hack.secrecy import secret
from supernode.registry_credentials import FILE_BYTES_MAX, RegistryCredentials, parse

PASSWORD = secret("hunter2-of-the-operator")
TEAM, ALL = Credential("team", PASSWORD), Credential("all", PASSWORD)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def config(**auths: dict[str, str]) -> bytes:
    return json.dumps({"auths": auths}).encode()


CONFIG = config(
    **{
        "https://reg.example.com/v2/team": {"auth": encoded(f"team:{PASSWORD}")},
        "reg.example.com": {"username": "all", "password": PASSWORD, "email": "x"},
        "empty.example.com": {},
    }
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / ".dockerconfigjson"
    file.write_bytes(CONFIG)
    return file


class Registry:
    """Refuses who is not let in."""

    def __init__(self, *allowed: Credential | None, status: int = 401) -> None:
        self.allowed = allowed
        self.status = status
        self.asked: list[Credential | None] = []

    def __call__(self, credential: Credential | None) -> str:
        self.asked.append(credential)
        if credential in self.allowed:
            return "bytes"
        raise OriginError(self.status, f"refusal {len(self.asked)}")


def test_what_everybody_may_have_is_asked_for_as_nobody(file: Path) -> None:
    registry = Registry(None, TEAM)
    assert RegistryCredentials(str(file)).ask("reg.example.com", "team/app", registry) == ("bytes", False)
    assert registry.asked == [None]


@pytest.mark.parametrize("status", [401, 403])
def test_where_that_is_refused_the_more_specific_credential_is_tried_first(file: Path, status: int) -> None:
    registry = Registry(ALL, status=status)
    assert RegistryCredentials(str(file)).ask("reg.example.com", "team/app", registry) == ("bytes", True)
    assert registry.asked == [None, TEAM, ALL]
    other = Registry(ALL)
    assert RegistryCredentials(str(file)).ask("reg.example.com", "other/app", other) == ("bytes", True)
    assert other.asked == [None, ALL]


@pytest.mark.parametrize(
    "registry", ["other.example.com", "empty.example.com", "reg.example.com:5000", "reg.example.com.evil.example"]
)
def test_no_credential_goes_to_a_registry_that_it_is_not_for(file: Path, registry: str) -> None:
    asked = Registry()
    with pytest.raises(OriginError, match=r"^refusal 1$"):
        RegistryCredentials(str(file)).ask(registry, "team/app", asked)
    assert asked.asked == [None]


def test_where_none_helps_the_refusal_is_everybodys(file: Path) -> None:
    with pytest.raises(OriginError, match=r"^refusal 1$"):
        RegistryCredentials(str(file)).ask("reg.example.com", "team/app", Registry())


@pytest.mark.parametrize("status", [404, 429, 502])
def test_another_failure_is_no_refusal(file: Path, status: int) -> None:
    registry = Registry(TEAM, status=status)
    with pytest.raises(OriginError):
        RegistryCredentials(str(file)).ask("reg.example.com", "team/app", registry)
    assert registry.asked == [None]


def test_another_file_by_that_name_is_taken_up_and_a_wrong_one_leaves_them_as_they_were(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    credentials = RegistryCredentials(str(file))
    for content, asked in ((config(**{"reg.example.com": {"auth": encoded("new:" + PASSWORD)}}), "new"), (b"{", "new")):
        (file.parent / "new").write_bytes(content)
        (file.parent / "new").replace(file)
        registry = Registry(Credential(asked, PASSWORD))
        assert credentials.ask("reg.example.com", "team/app", registry) == ("bytes", True)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_without_a_file_or_with_one_that_is_away_everybody_is_asked_for(tmp_path: Path) -> None:
    for path in ("", str(tmp_path / "missing")):
        registry = Registry()
        with pytest.raises(OriginError, match=r"^refusal 1$"):
            RegistryCredentials(path).ask("reg.example.com", "team/app", registry)
        assert registry.asked == [None]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b'{"auths": []}', b'{"auths": {"a": 7}}', b"\xff", b"[" * 100_000, b" " * (FILE_BYTES_MAX + 1),
        config(a={"auth": "%%%"}), config(a={"auth": encoded(PASSWORD)}), config(a={"auth": base64.b64encode(b"\xff:").decode()}),
    ],
)  # fmt: skip
def test_what_is_no_docker_config_is_refused_in_one_line_that_tells_no_secret(content: bytes) -> None:
    with pytest.raises(ValueError, match=r".") as refused:
        parse(content)
    assert str(refused.value).isprintable()
    assert PASSWORD not in str(refused.value)
