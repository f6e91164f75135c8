"""Files of web servers go through the swarm: nodes and a supernode in this process, and what their server was asked."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agent.values.errors import StoreError
from cli.app import main
from hack.origin import Image
from tests.endpoint import runtime_at_node
from tests.swarm import REPOSITORY, noise, wait_until
from tests.web_files import Site, UnixConnection, site_of_files


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of_files(tmp_path) as site:
        yield site


def test_many_nodes_get_a_file_at_once_and_its_server_sends_it_once(site: Site) -> None:
    body = noise(8 << 20)
    site.web.put("/model.bin", body)
    site.nodes(4)
    for got in site.everywhere(site.web.url("/model.bin?version=1")):
        assert (got.status, got.whole, hashlib.sha256(got.body).digest()) == (200, True, hashlib.sha256(body).digest())
        assert got.headers["Darner-Shared"] == "yes"
    assert site.web.sent() == len(body)
    assert all(node.sources() for node in site.lab.nodes)


def test_a_file_with_a_digest_is_checked_against_it(site: Site) -> None:
    body = noise(1 << 20)
    site.web.put("/a", body)
    site.nodes(2)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert [got.body for got in site.everywhere(site.web.url("/a"), digest=digest)] == [body, body]
    assert site.web.sent() == len(body)
    wrong = site.get(0, site.web.url("/a"), digest=f"sha256:{'1' * 64}")
    assert not wrong.whole or wrong.status >= 500


def test_one_file_at_two_urls_is_one_in_the_swarm_if_its_digest_is_said(site: Site) -> None:
    body = noise(2 << 20)
    site.web.put("/a", body)
    site.web.put("/b", body, etag='"another"')
    site.nodes(2)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    assert [site.get(node, site.web.url(path), digest=digest).body for node, path in enumerate(("/a", "/b"))] == [body, body]
    assert site.web.sent() == len(body)


def test_who_names_a_wrong_digest_of_a_file_costs_others_nothing(site: Site) -> None:
    body = noise(2 << 20)
    site.web.put("/wrong", noise(2 << 20, 2))
    site.web.put("/right", body)
    site.nodes(2)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    wrong = site.get(0, site.web.url("/wrong"), digest=digest)
    assert wrong.status >= 500 or not wrong.whole
    assert site.get(1, site.web.url("/right"), digest=digest).body == body
    assert site.get(0, site.web.url("/right"), digest=digest).body == body


def test_a_file_that_is_replaced_while_it_comes_is_never_spliced(site: Site) -> None:
    old, new = noise(6 << 20, 1), noise(6 << 20, 2)
    page = site.web.put("/a", old)
    page.rate = 8 << 20

    def replace(path: str, sent: int) -> None:
        if sent >= 3 << 20:
            page.body, page.etag, page.rate = new, '"new"', 0.0

    site.web.on_chunk = replace
    site.nodes(3)
    for got in site.everywhere(site.web.url("/a")):
        assert not got.whole or got.body in (old, new)
        assert not got.whole or got.status == 200
    site.web.on_chunk = lambda path, sent: None
    assert [got.body for got in site.everywhere(site.web.url("/a"))] == [new] * 3


def test_a_redirect_is_followed_and_the_users_headers_are_not_sent_there(site: Site) -> None:
    body = noise(1 << 20)
    site.web.pages["/a"] = page = site.web.put("/a", b"", status=302, etag="")
    page.headers["Location"] = site.other.url("/signed?signature=abc")
    page.authorization = "Bearer kept-on-this-node"
    site.other.put("/signed", body, methods=("GET",))  # as signed URLs are good for one method
    site.nodes(2)
    for got in site.everywhere(site.web.url("/a"), own={"Authorization": page.authorization, "X-Team": "a"}):
        assert (got.status, got.body) == (200, body)
        assert got.headers["Darner-Shared"] == "no"
    assert {asked.headers.get("X-Team") for asked in site.web.asked if asked.status == 302} == {"a"}
    assert not [asked for asked in site.other.asked if asked.headers.get("Authorization") or asked.headers.get("X-Team")]
    assert site.other.sent() >= 2 * len(body)  # each node alone: nothing of it went to another
    assert not any(node.sources() for node in site.lab.nodes)


def test_a_credential_that_nobody_needs_does_not_keep_a_file_from_being_shared(site: Site) -> None:
    body = noise(2 << 20)
    site.web.put("/a", body)
    site.nodes(3)
    got = site.everywhere(site.web.url("/a"), own={"Authorization": "Bearer not-needed"})
    assert [one.body for one in got] == [body] * 3
    assert site.web.sent() == len(body)


def test_who_is_refused_by_the_server_gets_nothing_of_what_others_have(site: Site) -> None:
    body = noise(1 << 20)
    site.web.put("/a", body, authorization="Bearer right-one")
    site.nodes(1)
    assert site.get(0, site.web.url("/a"), own={"Authorization": "Bearer right-one"}).body == body
    for own in ({}, {"Authorization": "Bearer wrong-one"}):
        got = site.get(0, site.web.url("/a"), own=own)
        assert got.status == 401
        assert "answered 401" in got.said


def test_what_a_server_repeats_of_who_asks_is_told_to_nobody(site: Site) -> None:
    said = {"errors": [{"code": "DENIED", "message": "not Bearer s3cret-token, nor s3cret-key"}]}
    site.web.put("/a", json.dumps(said).encode(), status=404)
    site.nodes(1)
    got = site.get(0, site.web.url("/a"), own={"Authorization": "Bearer s3cret-token", "X-Key": "s3cret-key"})
    assert got.status == 404
    assert "not Bearer ***, nor ***" in got.said


def test_servers_that_are_not_listed_are_not_asked(site: Site) -> None:
    site.other.put("/a", b"secret")
    site.nodes(1)
    got = site.get(0, site.other.url("/a"))
    assert got.status == 403
    assert "files.allow" in got.said
    assert not site.other.asked


def test_what_the_agent_may_ask_for_and_the_supernode_may_not_comes_all_the_same(site: Site) -> None:
    body = noise(1 << 20)
    site.other.put("/a", body)
    site.serve(site.lab.node(), site.other.address)
    assert site.get(0, site.other.url("/a")).body == body


def test_a_file_without_a_version_is_each_nodes_own(site: Site) -> None:
    body = noise(1 << 20)
    site.web.put("/a", body, etag='W/"weak"')
    site.nodes(2)
    got = site.everywhere(site.web.url("/a"))
    assert [one.body for one in got] == [body, body]
    assert site.web.sent() == 2 * len(body)
    assert not any(node.sources() for node in site.lab.nodes)


def test_what_is_wanted_from_an_offset_on_is_of_the_version_that_is_said(site: Site) -> None:
    body = noise(1 << 20)
    page = site.web.put("/a", body)
    site.nodes(1)
    url = site.web.url("/a")
    rest = site.get(0, url, Range="bytes=1000-", If_Range=page.etag)
    assert (rest.status, rest.body) == (206, body[1000:])
    other = site.get(0, url, Range="bytes=1000-", If_Range='"older"')
    assert (other.status, other.body) == (200, body)
    assert site.get(0, url, Range=f"bytes={len(body)}-").status == 416


def test_an_empty_file_is_a_file(site: Site) -> None:
    site.web.put("/a", b"")
    site.nodes(1)
    got = site.get(0, site.web.url("/a"))
    assert (got.status, got.body, got.whole) == (200, b"", True)


def test_without_a_supernode_the_node_asks_alone(site: Site) -> None:
    body = noise(2 << 20)
    site.web.put("/a", body)
    site.nodes(1)
    site.lab.stop_supernode()
    assert site.get(0, site.web.url("/a")).body == body


def test_a_connection_that_breaks_is_resumed_with_the_same_version(site: Site) -> None:
    body = noise(4 << 20)
    site.web.put("/a", body, break_at=2 << 20)
    site.nodes(2)
    assert [got.body for got in site.everywhere(site.web.url("/a"))] == [body, body]
    assert site.web.sent() < 1.5 * len(body)


def test_nodes_tell_from_where_the_bytes_came(site: Site) -> None:
    body = noise(4 << 20)
    site.web.put("/a", body)
    site.nodes(2)
    task = site.everywhere(site.web.url("/a"))[0].headers["Darner-File"]
    with closing(UnixConnection(site.sockets[0])) as connection:
        connection.request("GET", f"/v1/file/{task}")
        sources = json.loads(connection.getresponse().read())["sources"]
    assert sources["peer"] + sources["supernode"] == len(body)


def test_files_leave_places_for_the_images_that_the_node_pulls(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.download.manager.FILES_MAX", 1)
    site.web.put("/slow", noise(2 << 20), rate=1 << 20)
    site.web.put("/a", b"abc")
    site.nodes(1)
    slow = threading.Thread(target=site.get, args=(0, site.web.url("/slow")))
    slow.start()
    wait_until(lambda: site.web.sent("/slow") > 0)
    refused = site.get(0, site.web.url("/a"))
    assert (refused.status, refused.said) == (503, "1 files are being downloaded already")
    assert site.lab.nodes[0].pull(site.lab.push(b"a layer").layers[0]) == b"a layer"
    slow.join()


# By `darner get`.


@pytest.fixture
def typed(site: Site, monkeypatch: pytest.MonkeyPatch) -> Site:
    """A site with a node whose socket `darner get` finds."""
    folder = site.lab.root / "typed"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cli.get.transfer.PAUSE_SECONDS", 0.01)
    site.nodes(2)
    monkeypatch.setenv("DARNER_SOCKET", str(site.sockets[0]))
    return site


def test_darner_get_says_from_where_the_bytes_came(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    body = noise(8 << 20)
    typed.web.put("/a.bin", body)
    assert main(["get", typed.web.url("/a.bin")]) == 0
    assert Path("a.bin").read_bytes() == body
    said = capsys.readouterr().err
    assert "from the supernode 8.0 MiB" in said
    assert "server itself" not in said
    assert typed.web.sent() == len(body)


def test_what_was_interrupted_goes_on_through_the_agent(typed: Site) -> None:
    body = noise(8 << 20)
    page = typed.web.put("/a.bin", body)
    Path("a.bin.part").write_bytes(body[: 5 << 20])
    url = typed.web.url("/a.bin")
    said = {"url": hashlib.sha256(url.encode()).hexdigest(), "digest": "", "validator": page.etag}
    Path("a.bin.part.of").write_text(json.dumps(said))
    assert main(["get", url, "-q"]) == 0
    assert Path("a.bin").read_bytes() == body


def test_without_the_agent_that_was_lost_the_server_brings_the_rest(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    body = noise(8 << 20)
    typed.web.put("/a.bin", body, rate=16 << 20)

    def lose(path: str, sent: int) -> None:
        if sent >= 4 << 20:
            typed.listeners[0].stop()

    typed.web.on_chunk = lose
    assert main(["get", typed.web.url("/a.bin")]) == 0
    assert Path("a.bin").read_bytes() == body
    assert "The server itself is asked" in capsys.readouterr().err


def test_a_server_that_is_not_listed_is_asked_directly_and_that_is_said(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    typed.other.put("/a.bin", b"abc")
    assert main(["get", typed.other.url("/a.bin")]) == 0
    assert Path("a.bin").read_bytes() == b"abc"
    assert "files.allow" in capsys.readouterr().err


def test_a_refusal_of_the_server_is_not_asked_for_twice(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    typed.web.put("/a.bin", b"abc", authorization="Bearer right-one")
    assert main(["get", typed.web.url("/a.bin"), "-q"]) == 6
    assert "answered 401" in capsys.readouterr().err
    assert main(["get", typed.web.url("/a.bin"), "-q", "--header", "Authorization: Bearer right-one"]) == 0
    assert main(["get", typed.web.url("/b.bin"), "-q"]) == 8


def test_a_wrong_digest_is_an_error_and_leaves_no_file(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    body = noise(1 << 20)
    typed.web.put("/a.bin", body)
    assert main(["get", typed.web.url("/a.bin"), "--digest", f"sha256:{'1' * 64}", "-q"]) == 1
    assert hashlib.sha256(body).hexdigest() in capsys.readouterr().err
    assert not os.listdir()


def test_a_server_that_has_no_such_range_of_anything_is_asked_for_it_once(
    typed: Site, capsys: pytest.CaptureFixture[str]
) -> None:
    typed.web.put("/a.bin", b"", status=416)
    assert main(["get", typed.web.url("/a.bin"), "-q"]) == 8
    assert "answered 416" in capsys.readouterr().err
    assert len(typed.web.asked) == 1


def test_who_names_a_digest_wrongly_cannot_keep_others_from_the_file(typed: Site) -> None:
    body = noise(4 << 20)
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    typed.web.put("/wrong", noise(4 << 20, 2), rate=4 << 20)
    typed.web.put("/right", body)
    wrong = threading.Thread(target=typed.get, args=(1, typed.web.url("/wrong")), kwargs={"digest": digest})
    wrong.start()
    wait_until(lambda: typed.web.sent("/wrong") > 0)
    assert main(["get", typed.web.url("/right"), "--digest", digest, "-q"]) == 0
    assert Path("right").read_bytes() == body
    wrong.join()


def test_an_artifacts_files_come_through_the_registry_endpoint(typed: Site, capsys: pytest.CaptureFixture[str]) -> None:
    weights, card = noise(3 << 20), b"# a model"
    origin = typed.lab.origin
    artifact = Image.of([weights, card])
    manifest = json.loads(artifact.manifest)
    for layer, title in zip(manifest["layers"], ("weights.bin", "docs/card.md"), strict=True):
        layer["annotations"] = {"org.opencontainers.image.title": title}
    origin.push(REPOSITORY, "1", replace(artifact, manifest=json.dumps(manifest).encode()))
    name = f"oci://{origin.address}/{REPOSITORY}:1"
    with runtime_at_node(typed.lab.nodes[0], origin) as endpoint:
        where = str(endpoint.listener.address)
        assert main(["get", name, "-o", "model", "-q", "--registry", where]) == 0
        assert Path("model/weights.bin").read_bytes() == weights
        assert Path("model/docs/card.md").read_bytes() == card
        assert main(["get", f"{name}no", "-q", "--registry", where]) == 8
        typed.lab.push(b"a layer", tag="image")
        assert main(["get", name.removesuffix("1") + "image", "-q", "--registry", where]) == 1
        assert "darner pull" in capsys.readouterr().err
    assert main(["get", name, "-q", "--registry", where]) == 4
    assert "no agent answers" in capsys.readouterr().err


def test_darner_get_ends_with_one_version_of_a_file_that_is_replaced_meanwhile(typed: Site) -> None:
    old, new = noise(6 << 20, 1), noise(6 << 20, 2)
    page = typed.web.put("/a.bin", old, rate=16 << 20)

    def replace_it(path: str, sent: int) -> None:
        if sent >= 3 << 20:
            page.body, page.etag, page.rate = new, '"new"', 0.0

    typed.web.on_chunk = replace_it
    assert main(["get", typed.web.url("/a.bin"), "-q"]) == 0
    assert Path("a.bin").read_bytes() == new


def test_an_agent_whose_disk_is_full_is_gone_around(
    typed: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = noise(1 << 20)
    typed.web.put("/a.bin", body)

    def refuse(*_: object, **__: object) -> None:
        raise StoreError("the store has no room for 1048576 bytes: the disk is full")

    monkeypatch.setattr(typed.lab.nodes[0].store, "receive", refuse)
    assert main(["get", typed.web.url("/a.bin")]) == 0
    assert Path("a.bin").read_bytes() == body
    said = capsys.readouterr().err
    assert "the disk is full" in said
    assert "The server itself is asked" in said
