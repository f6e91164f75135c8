"""`darner get` as a person types it: its exit codes are wget's, and what was interrupted goes on."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from cli.app import main
from tests.swarm import noise, wait_until
from tests.web_server import Page, WebServer

Say = pytest.CaptureFixture[str]


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def left_of(name: str, url: str, validator: str, digest: str = "") -> None:
    """An earlier try has left what is in NAME.part, of that version."""
    said = {"url": hashlib.sha256(url.encode()).hexdigest(), "digest": digest, "validator": validator}
    Path(f"{name}.part.of").write_text(json.dumps(said))


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WebServer]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DARNER_SOCKET", str(tmp_path / "no.sock"))
    monkeypatch.setattr("cli.get.transfer.PAUSE_SECONDS", 0.01)
    with WebServer() as server:
        yield server


def test_without_an_agent_the_server_itself_is_asked_and_that_is_said(web: WebServer, capsys: Say) -> None:
    body = noise(3 << 20)
    web.put("/models/a.bin", body)
    assert main(["get", web.url("/models/a.bin?x=1")]) == 0
    assert Path("a.bin").read_bytes() == body
    said = capsys.readouterr().err
    assert "no agent answers at" in said
    assert "The server itself is asked" in said
    assert "a.bin: 3.0 MiB in" in said
    assert "from the server 3.0 MiB" in said
    assert sorted(os.listdir()) == ["a.bin"]


def test_a_directory_and_a_name_can_be_said(web: WebServer) -> None:
    web.put("/a.bin", b"abc")
    Path("d").mkdir()
    assert main(["get", web.url("/a.bin"), "-o", "d", "-q"]) == 0
    assert main(["get", web.url("/a.bin"), "--output", "e/f", "-q"]) == 0
    assert Path("d/a.bin").read_bytes() == Path("e/f").read_bytes() == b"abc"


def test_what_is_interrupted_goes_on_where_it_ended(web: WebServer) -> None:
    body = noise(3 << 20)
    page = web.put("/a.bin", body)
    Path("a.bin.part").write_bytes(body[: 2 << 20])
    left_of("a.bin", web.url("/a.bin"), page.etag, digest_of(body))
    assert main(["get", web.url("/a.bin"), "--digest", digest_of(body)]) == 0
    assert Path("a.bin").read_bytes() == body
    assert web.sent() == 1 << 20


def test_what_is_left_of_another_version_is_not_gone_on_with(web: WebServer) -> None:
    body = noise(1 << 20)
    web.put("/a.bin", body)
    Path("a.bin.part").write_bytes(b"x" * 1000)
    left_of("a.bin", web.url("/a.bin"), '"older"')
    assert main(["get", web.url("/a.bin"), "-q"]) == 0
    assert Path("a.bin").read_bytes() == body


def test_a_connection_that_breaks_is_taken_up_again(web: WebServer) -> None:
    body = noise(4 << 20)
    web.put("/a.bin", body, break_at=2 << 20)
    assert main(["get", web.url("/a.bin"), "-q"]) == 0
    assert Path("a.bin").read_bytes() == body


def test_a_file_that_changes_for_ever_is_not_begun_anew_for_ever(web: WebServer, capsys: Say) -> None:
    page = web.put("/a.log", noise(1 << 20))

    def grow(path: str, sent: int) -> None:
        if sent or len(page.body) > 12 << 20:
            return
        page.body += noise(1 << 20)
        page.etag = f'"{len(page.body)}"'

    web.on_chunk = grow
    assert main(["get", web.url("/a.log"), "-q"]) == 4
    assert "has changed at its server" in capsys.readouterr().err
    assert len([asked for asked in web.asked if asked.method == "GET"]) <= 5


class Mirrored(Page):
    """Mirrors behind one name: each answer has an entity tag of its own."""

    @property
    def etag(self) -> str:
        return f'"{random.random()}"'

    @etag.setter
    def etag(self, value: str) -> None:
        pass


def test_a_server_of_which_each_answer_has_another_version_sends_the_file_in_one(web: WebServer) -> None:
    body = noise(1 << 20)
    web.pages["/a.bin"] = Mirrored(body)
    assert main(["get", web.url("/a.bin"), "-q"]) == 0
    assert Path("a.bin").read_bytes() == body


def test_what_was_left_and_turns_out_to_be_wrong_is_asked_for_anew(web: WebServer, capsys: Say) -> None:
    body = noise(1 << 20)
    page = web.put("/a.bin", body)
    Path("a.bin.part").write_bytes(b"x" * 1000)
    left_of("a.bin", web.url("/a.bin"), page.etag, digest_of(body))
    assert main(["get", web.url("/a.bin"), "--digest", digest_of(body)]) == 0
    assert Path("a.bin").read_bytes() == body
    assert "It is asked for anew" in capsys.readouterr().err
    assert os.listdir() == ["a.bin"]


def test_an_empty_file_whose_url_is_good_for_one_method_comes_too(web: WebServer) -> None:
    web.put("/empty", b"", methods=("GET",))
    assert main(["get", web.url("/empty"), "-q"]) == 0
    assert Path("empty").read_bytes() == b""


def test_what_listens_in_the_agents_place_and_is_none_is_gone_around(web: WebServer, tmp_path: Path, capsys: Say) -> None:
    web.put("/a.bin", b"abc")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "no.sock"))
        listening.listen(1)

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")

        answering = threading.Thread(target=answer)
        answering.start()
        assert main(["get", web.url("/a.bin")]) == 0
        answering.join()
    assert Path("a.bin").read_bytes() == b"abc"
    assert "without saying how many bytes come" in capsys.readouterr().err


def test_a_file_that_changes_meanwhile_is_of_one_version(web: WebServer) -> None:
    old, new = noise(4 << 20, 1), noise(4 << 20, 2)
    page = web.put("/a.bin", old)

    def change(path: str, sent: int) -> None:
        if sent == 2 << 20 and page.body is old:
            page.body, page.etag = new, '"new"'  # as an editor that writes into the file itself

    web.on_chunk = change
    assert main(["get", web.url("/a.bin"), "-q"]) == 0
    assert Path("a.bin").read_bytes() == new


def test_a_wrong_digest_leaves_no_file(web: WebServer, capsys: Say) -> None:
    web.put("/a.bin", b"abc")
    assert main(["get", web.url("/a.bin"), "--digest", digest_of(b"other"), "-q"]) == 1
    assert digest_of(b"abc") in capsys.readouterr().err
    assert not os.listdir()


def test_what_is_here_with_its_digest_is_not_asked_for(web: WebServer) -> None:
    Path("a.bin").write_bytes(b"abc")
    assert main(["get", web.url("/a.bin"), "--digest", digest_of(b"abc"), "-q"]) == 0
    assert not web.asked


def test_a_file_whose_length_is_not_said_comes_too(web: WebServer) -> None:
    web.put("/a.tar", b"abc" * 1000, is_sized=False)
    assert main(["get", web.url("/a.tar"), "-q"]) == 0
    assert Path("a.tar").read_bytes() == b"abc" * 1000


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["ftp://host/a"], 2, "https://HOST/PATH"),
        (["https://user:word@host/a"], 2, "no user in it"),
        (["https://host/a/../b"], 2, ". or .."),
        (["https://host/a", "--digest", "md5:1"], 2, "--digest"),
        (["https://host/a", "--header", "Host: other"], 2, "--header"),
        (["https://host/a", "--header", "nothing"], 2, "--header"),
        (["https://host/a", "--limit-rate", "fast"], 2, "--limit-rate"),
        (["https://host/a", "--timeout", "soon"], 2, "--timeout"),
        (["hf://one"], 2, "hf://OWNER/REPO"),
        (["hf://a/b/../../c"], 2, "path is none"),
        (["oci://UPPER/Case:??"], 2, "oci://"),
        (["http://127.0.0.1:9/a"], 4, "cannot be reached"),
        (["{web}/gone"], 8, "answered 404"),
        (["{web}/secret"], 6, "answered 401"),
        (["{web}/a", "-o", "/proc/no/a"], 3, "cannot be written"),
    ],
)
def test_each_way_to_fail_has_wgets_exit_code_and_one_line(
    web: WebServer, capsys: Say, arguments: list[str], status: int, words: str
) -> None:
    web.put("/secret", b"abc", authorization="Bearer abcdef")
    web.put("/a", b"abc")
    arguments = [argument.replace("{web}", web.url("")) for argument in arguments]
    assert main(["get", *arguments, "-q"]) == status
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_a_full_disk_is_said_and_what_came_stays(web: WebServer, monkeypatch: pytest.MonkeyPatch, capsys: Say) -> None:
    web.put("/a", noise(1 << 20))
    assert main(["get", web.url("/a"), "-o", "/dev/full/a", "-q"]) == 3
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert main(["get", web.url("/a"), "-q"]) == 3
    assert "No space left on device" in capsys.readouterr().err
    assert sorted(os.listdir()) == ["a.part", "a.part.of"]


def test_two_at_once_do_not_write_one_file(web: WebServer, capsys: Say) -> None:
    web.put("/a", b"abc")
    with open("a.part", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert main(["get", web.url("/a"), "-q"]) == 3
    assert "another darner get is writing it" in capsys.readouterr().err


def test_one_that_had_it_when_it_was_opened_and_has_finished_since_keeps_its_file(
    web: WebServer, monkeypatch: pytest.MonkeyPatch, capsys: Say
) -> None:
    web.put("/a", b"abc")
    lock = fcntl.flock

    def finished_first(file: BinaryIO, how: int) -> None:
        os.replace("a.part", "a")
        lock(file, how)

    Path("a.part").write_bytes(b"the other one's")
    monkeypatch.setattr("fcntl.flock", finished_first)
    assert main(["get", web.url("/a"), "-q"]) == 3
    assert "another darner get is writing it" in capsys.readouterr().err
    assert Path("a").read_bytes() == b"the other one's"


def test_what_a_url_says_of_who_asks_is_not_written_down(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    web.put("/a", b"abc")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert main(["get", web.url("/a?signature=s3cret"), "-q"]) == 3
    assert "s3cret" not in Path("a.part.of").read_text()


def piped(web: WebServer, *more: str) -> list[str]:
    program = "import sys; from cli.app import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", program, "get", web.url("/a"), "-O", "-", "--socket", "", *more]


def test_standard_output_gets_the_bytes_and_nothing_else(web: WebServer) -> None:
    body = noise(1 << 20)
    web.put("/a", body)
    run = subprocess.run(piped(web), capture_output=True, check=True)
    assert run.stdout == body
    assert b"MiB in" in run.stderr


def test_a_closed_pipe_ends_it_quietly(web: WebServer) -> None:
    web.put("/a", noise(8 << 20), rate=64 << 20)
    process = subprocess.Popen(piped(web, "-q"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    assert process.stderr
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(20) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


class Hub:
    """The two endpoints of a hub that `darner get` asks, and another server that large files are at."""

    def __init__(self, hub: WebServer, store: WebServer) -> None:
        self.hub, self.store = hub, store
        self.listed: list[dict[str, object]] = []
        self.token = "Bearer hf_of-a-test"

    def has(self, path: str, body: bytes, *, is_large: bool, place: str = "org/model/resolve/main") -> None:
        self.listed.append({"type": "file", "path": path, "size": len(body)})
        if not is_large:
            self.hub.put(f"/{place}/{path}", body, authorization=self.token)
            return
        oid = digest_of(body).removeprefix("sha256:")
        self.listed[-1]["lfs"] = {"oid": oid, "size": len(body), "pointerSize": 130}
        where = {"Location": self.store.url(f"/{oid}?signature=abc")}
        self.hub.put(f"/{place}/{path}", b"", status=302, headers=where, authorization=self.token, etag="")
        self.store.put(f"/{oid}", body, methods=("GET",))

    def publish(self, kind: str = "models", page: int = 100) -> None:
        place, pages = f"/api/{kind}/org/model/tree/main?recursive=true", [*self.listed]
        for number in range(0, len(pages), page):
            path = place + (f"&cursor={number}" if number else "")
            listing = self.hub.put(path, json.dumps(pages[number : number + page]).encode(), authorization=self.token)
            if number + page < len(pages):
                listing.headers["Link"] = f'<{self.hub.url(place)}&cursor={number + page}>; rel="next"'


@pytest.fixture
def hub(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    # The store is on loopback too, where a hub's redirects lead nobody.
    monkeypatch.setattr("agent.origin.destinations.refusal", lambda *_: None)
    monkeypatch.setattr("agent.origin.destinations._lists", lambda *_: True)
    monkeypatch.setenv("HF_ENDPOINT", web.url(""))
    monkeypatch.setenv("HF_TOKEN", "hf_of-a-test")
    with WebServer() as store:
        yield Hub(web, store)


def test_a_models_repository_comes_into_a_directory(hub: Hub, capsys: Say) -> None:
    weights = noise(2 << 20)
    hub.listed.append({"type": "directory", "path": "onnx"})
    hub.has("config.json", b"{}", is_large=False)
    hub.has("onnx/model.onnx", weights, is_large=True)
    hub.has("a b.txt", b"spaced", is_large=False)
    hub.hub.pages["/org/model/resolve/main/a%20b.txt"] = hub.hub.pages["/org/model/resolve/main/a b.txt"]
    hub.publish(page=2)
    assert main(["get", "hf://org/model"]) == 0
    assert Path("model/onnx/model.onnx").read_bytes() == weights
    assert Path("model/config.json").read_bytes() == b"{}"
    assert Path("model/a b.txt").read_bytes() == b"spaced"
    assert not [asked for asked in hub.store.asked if asked.headers.get("Authorization")]
    assert "hf_of-a-test" not in capsys.readouterr().err


def test_one_file_of_a_data_set_comes_alone_and_its_digest_is_the_listings(hub: Hub, capsys: Say) -> None:
    body = noise(1 << 20)
    hub.has("train/0.parquet", body, is_large=True, place="datasets/org/model/resolve/main")
    hub.publish("datasets")
    assert main(["get", "hf://datasets/org/model@main/train/0.parquet", "-q"]) == 0
    assert Path("0.parquet").read_bytes() == body
    hub.store.pages[f"/{hashlib.sha256(body).hexdigest()}"].body = noise(1 << 20, 2)
    assert main(["get", "hf://datasets/org/model@main/train/0.parquet", "-o", "again", "-q"]) == 1
    assert "not " + digest_of(body) in capsys.readouterr().err


def test_a_hub_cannot_lead_a_file_out_of_its_directory(hub: Hub, capsys: Say) -> None:
    hub.listed = [{"type": "file", "path": "../../etc/passwd"}]
    hub.publish()
    assert main(["get", "hf://org/model", "-q"]) == 7
    assert not Path("model").exists()


@pytest.mark.parametrize("body", [b"[]x", b"{}", b"[1]", b'[{"type": "file"}]', b'[{"type": "file", "path": 1}]'])
def test_what_is_no_list_of_a_hub_is_said_in_a_line(hub: Hub, capsys: Say, body: bytes) -> None:
    hub.hub.put("/api/models/org/model/tree/main?recursive=true", body, authorization=hub.token)
    assert main(["get", "hf://org/model", "-q"]) == 7
    assert capsys.readouterr().err.count("\n") == 1


def test_a_hubs_next_page_that_is_none_is_said(hub: Hub, capsys: Say) -> None:
    page = hub.hub.put("/api/models/org/model/tree/main?recursive=true", b"[]", authorization=hub.token)
    page.headers["Link"] = '<http://[>; rel="next"'
    assert main(["get", "hf://org/model", "-q"]) == 7
    assert "a further page that is elsewhere" in capsys.readouterr().err


def test_a_name_that_no_file_can_have_is_cut_if_it_is_made_of_a_url_and_else_said(web: WebServer, capsys: Say) -> None:
    web.put("/" + "a" * 300, b"abc")
    assert main(["get", web.url("/" + "a" * 300), "-q"]) == 0
    assert Path("a" * 240).read_bytes() == b"abc"
    assert main(["get", web.url("/" + "a" * 300), "-o", "b" * 300, "-q"]) == 3
    assert "File name too long" in capsys.readouterr().err


def test_what_a_hub_does_not_have_is_said(hub: Hub, capsys: Say) -> None:
    hub.has("config.json", b"{}", is_large=False)
    hub.publish()
    assert main(["get", "hf://org/model/weights.bin", "-q"]) == 8
    assert "does not have weights.bin" in capsys.readouterr().err
    assert main(["get", "hf://org/other", "-q"]) == 8
    hub.token = "Bearer another"
    hub.publish()
    assert main(["get", "hf://org/model", "-q"]) == 6


def test_ctrl_c_leaves_what_came_and_the_next_try_goes_on_there(web: WebServer) -> None:
    body = noise(8 << 20)
    page = web.put("/a", body, rate=8 << 20)
    process = subprocess.Popen([*piped(web, "-q")[:3], "get", web.url("/a"), "--socket", "", "-q"], stderr=subprocess.PIPE)
    wait_until(lambda: Path("a.part").exists() and Path("a.part").stat().st_size >= 2 << 20)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert process.stderr
    assert process.stderr.read() == b""
    process.stderr.close()
    came = Path("a.part").stat().st_size
    web.asked.clear()
    page.rate = 0.0
    assert main(["get", web.url("/a"), "-q"]) == 0
    assert Path("a").read_bytes() == body
    assert web.sent() == len(body) - came


def test_a_device_that_is_full_is_said(web: WebServer, capsys: Say) -> None:
    web.put("/a", b"abc")
    assert main(["get", web.url("/a"), "-o", "/dev/full", "-q"]) == 3
    assert "No space left on device" in capsys.readouterr().err
    assert main(["get", web.url("/a"), "-o", "/dev/null", "-q"]) == 0
