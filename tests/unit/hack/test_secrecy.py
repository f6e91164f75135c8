"""A secret is found in whatever form it is told, and a run of the suite in which one was told fails."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest

from hack.lab.darner import TREE
from hack.secrecy import found_in, secret

PASSWORD = secret("pa55/w0rd+of=alice", "the password of a test")
KEY = secret(bytes.fromhex("00ff10e2aa31c7f0925504e8"), "the key of a test")


def found(text: str) -> set[str]:
    return {what for _, what in found_in(text)}


@pytest.mark.parametrize("form", [PASSWORD, quote(PASSWORD, safe=""), PASSWORD.encode().hex()])
def test_a_secret_is_found_as_it_is_in_a_url_and_in_digits(form: str) -> None:
    assert found(f"GET /v2/?a={form}&b=c") == {"the password of a test"}


@pytest.mark.parametrize("user", ["", "a", "al", "ali", "alice"])
@pytest.mark.parametrize("behind", ["", "a", "al"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_a_secret_is_found_in_base64_whatever_is_around_it(user: str, behind: str, encode: type[bytes]) -> None:
    assert found(f"Basic {encode(f'{user}{PASSWORD}{behind}'.encode()).decode()}, and so on") == {"the password of a test"}


@pytest.mark.parametrize("form", [KEY.hex(), repr(KEY)[2:-1], base64.b64encode(KEY).decode()])
def test_the_bytes_of_a_key_are_found_however_they_are_printed(form: str) -> None:
    assert found(f"key {form}.") == {"the key of a test"}


def test_words_and_what_is_short_are_no_secrets() -> None:
    secret("a password")
    secret("p4ss")
    assert found("a password p4ss") == set()


RUN = """
import logging
from agent.values.credential import Credential

def test_one() -> None:
    credential = Credential("alice", "pa55w0rd-of-this-run")
    logging.getLogger("agent.any").debug("asked with %s", {what})
"""


@pytest.mark.parametrize(("what", "status"), [("credential.header", 1), ("credential", 0)])
def test_a_run_in_which_a_secret_was_logged_fails_and_does_not_tell_it_again(tmp_path: Path, what: str, status: int) -> None:
    (tmp_path / "test_told.py").write_text(RUN.format(what=what))
    argv = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-c", TREE / "pyproject.toml", "--rootdir", TREE, "-q"]
    environment = {**os.environ, "PYTEST_ADDOPTS": ""}
    run = subprocess.run([*argv, tmp_path], cwd=TREE, env=environment, capture_output=True, text=True)
    assert run.returncode == status, run.stdout + run.stderr
    assert ("secrets that were told" in run.stdout) == bool(status)
    assert "1 passed" in run.stdout
    assert "YWxpY2U6cGE1NXcwcmQtb2YtdGhpcy1ydW4" not in run.stdout
