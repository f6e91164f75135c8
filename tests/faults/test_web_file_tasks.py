"""What an agent says of a file of a web server is believed only as far as the supernode sees itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.swarm import messages
from agent.values.reference import raw_digest
from agent.values.web_file import WebFile
from tests.swarm import RawAgent, noise
from tests.web_files import Site, site_of_files

BODY = noise(1 << 20)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with site_of_files(tmp_path) as site:
        yield site


def opened(file: WebFile, task: str = "", **other: str) -> messages.Open:
    said = messages.OpenedFile(other.get("url", file.url), file.validator, file.digest)
    named = raw_digest(task or file.task)
    return messages.Open(1, named, other.get("registry", file.server), file.path, b"", [0], file.size, False, said)


def test_a_task_that_is_not_of_its_file_or_of_no_listed_server_is_refused_and_nobody_is_asked(site: Site) -> None:
    site.web.put("/a", BODY)
    site.other.put("/a", BODY)
    file = WebFile(site.web.url("/a"), '"1"', len(BODY))
    elsewhere = WebFile(site.other.url("/a"), '"1"', len(BODY))
    wrong = [
        (opened(elsewhere), 403),  # not listed
        (opened(file, elsewhere.task), 400),  # as if it were another file's
        (opened(file, url=site.web.url("/b")), 400),
        (opened(file, registry=elsewhere.server), 400),
        (opened(replace(file, url=file.url.replace("/a", "/x/../a"))), 400),
        (opened(replace(file, url="file:///etc/passwd")), 400),
        (opened(replace(file, validator="")), 400),
        (opened(replace(file, size=0)), 400),
        (opened(replace(file, digest="md5:1")), 400),
    ]
    with RawAgent.joined(site.lab.channels[0], "stranger") as agent:
        for message, status in wrong:
            agent.say(message)
            assert agent.hear(messages.TaskFailed).status == status
    assert not site.web.asked
    assert not site.other.asked


def test_what_a_node_says_of_a_files_pieces_counts_for_nothing(site: Site) -> None:
    page = site.web.put("/a", BODY, rate=2 << 20)
    file = WebFile(site.web.url("/a"), page.etag, len(BODY))
    site.nodes(1)
    with RawAgent.joined(site.lab.channels[0], "liar") as liar:
        liar.say(opened(file))
        task = liar.hear(messages.Task).task
        liar.say(messages.Brought(task, dict.fromkeys(range(4), b"x" * 32)), messages.Disputed(task))
        liar.say(messages.Holds(messages.Holding(raw_digest(file.task), file.size), True))
        assert site.get(0, file.url).body == BODY
    assert site.web.sent() == len(BODY)


def test_a_version_that_the_server_does_not_have_fails_and_leaves_nothing(site: Site) -> None:
    site.web.put("/a", BODY)
    older = WebFile(site.web.url("/a"), '"older"', len(BODY))
    with RawAgent.joined(site.lab.channels[0], "late") as late:
        late.say(opened(older))
        failed = late.hear(messages.TaskFailed)
    assert failed.status == 412
    assert "has changed at its server" in failed.reason
    assert site.lab.supernode._store.blob(older.task) is None


def test_the_bytes_of_a_file_are_no_blob_of_an_image(site: Site) -> None:
    page = site.web.put("/a", BODY)
    file = WebFile(site.web.url("/a"), page.etag, len(BODY))
    site.nodes(1)
    assert site.get(0, file.url).body == BODY
    node = site.lab.nodes[0]
    assert file.task not in node.store.holdings()
    blob = node.store.blob(file.task)
    assert blob is not None
    assert set(blob.provenance.entries) == {file.server, f"{file.server}/{file.path}"}, "no registry is called so"
    site.lab.push(BODY)
    assert node.pull(site.lab.push(BODY).layers[0]) == BODY
