from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest

from agent.runtimes.certs_d import CertsD
from agent.runtimes.ours import MARK
from agent.values.address import Address

AGENT = Address("127.0.0.1", 65001)
MIRROR = {"host": {"http://127.0.0.1:65001": {"capabilities": ["pull", "resolve"]}}}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "certs.d"
    root.mkdir()
    return root


def below(root: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(root)): path.read_bytes() if path.is_file() else None for path in root.rglob("*")}


def hosts(root: Path, registry: str) -> object:
    return tomllib.loads((root / registry / "hosts.toml").read_text())


def test_the_agent_is_asked_first_and_containerd_decides_what_the_registrys_own_server_is(root: Path) -> None:
    assert CertsD(root, set()).write(["docker.io", "reg.example.com:5000"], AGENT) == []
    assert hosts(root, "docker.io") == hosts(root, "reg.example.com:5000") == MIRROR
    assert sorted(os.listdir(root)) == ["docker.io", "reg.example.com:5000"]


def test_a_registry_in_plain_http_stays_one_when_the_agent_is_away(root: Path) -> None:
    CertsD(root, {"a:5000"}).write(["a:5000"], AGENT)
    assert hosts(root, "a:5000") == {"server": "http://a:5000", **MIRROR}


def test_rewritten_names_are_not_asked_for_as_those_of_a_registry_when_the_agent_is_asked_for_all(root: Path) -> None:
    CertsD(root, set()).write(["_default"], AGENT)
    assert hosts(root, "_default") == MIRROR
    assert hosts(root, "127.0.0.1:65001") == {"server": "http://127.0.0.1:65001"}


@pytest.mark.parametrize(
    "theirs",
    [
        {"docker.io/hosts.toml": 'server = "https://mirror.example.com"\n'},
        {"docker.io/hosts.toml": ""},
        {"docker.io/ca.crt": "their authority"},
        {"_default/hosts.toml": 'server = "https://mirror.example.com"\n'},
    ],
)
def test_what_an_administrator_wrote_stays_as_it_is_and_counts(root: Path, theirs: dict[str, str]) -> None:
    for name, text in theirs.items():
        (root / name).parent.mkdir()
        (root / name).write_text(text)
    before = below(root)
    certs_d = CertsD(root, set())
    assert certs_d.write(["docker.io"], AGENT) == ["docker.io"]
    assert below(root) == before
    certs_d.remove()
    assert below(root) == before


def test_containerds_other_name_for_a_registry_with_a_port_counts_as_well(root: Path) -> None:
    (root / "a_5000_").mkdir()
    assert CertsD(root, set()).write(["a:5000", "_default"], AGENT) == ["a:5000"]
    assert not (root / "a:5000").exists()


def test_an_administrator_who_comes_later_gets_their_way_at_the_next_look(root: Path) -> None:
    certs_d = CertsD(root, set())
    certs_d.write(["docker.io", "quay.io"], AGENT)
    (root / "quay.io" / "hosts.toml").write_text("# mine\n")
    assert certs_d.write(["docker.io", "quay.io"], AGENT) == ["quay.io"]
    (root / "_default").mkdir()
    assert certs_d.write(["docker.io", "quay.io"], AGENT) == ["docker.io", "quay.io"]
    assert sorted(os.listdir(root)) == ["_default", "quay.io"]
    assert (root / "quay.io" / "hosts.toml").read_text() == "# mine\n"


def test_the_next_agent_takes_up_what_a_killed_one_left(root: Path) -> None:
    CertsD(root, set()).write(["docker.io", "quay.io"], Address("127.0.0.1", 1))
    (root / ".darner-docker.io").mkdir()  # a directory that it had not finished
    (root / "docker.io" / ".darner-hosts.toml").write_text(MARK)  # and a file, when it was killed in the middle of another text
    (root / "quay.io" / ".darner-hosts.toml").write_text(MARK)
    next_one = CertsD(root, set())
    assert next_one.write(["docker.io", "ghcr.io"], AGENT) == []
    assert hosts(root, "docker.io") == hosts(root, "ghcr.io") == MIRROR
    assert not (root / "quay.io").exists()
    next_one.remove()
    assert below(root) == {}


def test_one_of_ours_that_somebody_has_added_to_is_written_anew_whatever_is_in_it(root: Path) -> None:
    certs_d = CertsD(root, set())
    certs_d.write(["docker.io"], AGENT)
    with (root / "docker.io" / "hosts.toml").open("ab") as file:
        file.write(b"# \xe9\n")
    assert certs_d.write(["docker.io"], AGENT) == []
    assert hosts(root, "docker.io") == MIRROR


def test_a_file_beside_ours_stays(root: Path) -> None:
    certs_d = CertsD(root, set())
    certs_d.write(["docker.io"], AGENT)
    (root / "docker.io" / "ca.crt").write_text("theirs")
    certs_d.remove()
    assert below(root) == {"docker.io": None, "docker.io/ca.crt": b"theirs"}


def test_no_link_is_followed(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(MARK)
    (root / "docker.io").mkdir()
    (root / "docker.io" / "hosts.toml").symlink_to(elsewhere)
    certs_d = CertsD(root, set())
    assert certs_d.write(["docker.io"], AGENT) == ["docker.io"]
    certs_d.remove()
    assert elsewhere.read_text() == MARK
    assert (root / "docker.io" / "hosts.toml").is_symlink()


def test_nothing_is_written_twice(root: Path) -> None:
    certs_d = CertsD(root, set())
    certs_d.write(["docker.io"], AGENT)
    before = (root / "docker.io" / "hosts.toml").stat()
    certs_d.write(["docker.io"], AGENT)
    after = (root / "docker.io" / "hosts.toml").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
