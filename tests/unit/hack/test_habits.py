"""The habits of the test registry: all that it can do is in one of them, so that a walk through the habits leaves nothing out."""

from __future__ import annotations

import dataclasses
import http.client

from hack.origin import Access, Fault, Image, Origin
from hack.origin.faults import says
from hack.origin.habits import HABITS, REPOSITORY, Site, faults_of, together

LAYER = bytes(range(256)) * 4000


def test_whatever_an_answer_can_have_is_part_of_a_habit() -> None:
    faults = [fault for name in HABITS for fault in faults_of(name)[0]]
    for field in dataclasses.fields(Fault):
        assert any(says(fault, field.name) for fault in faults), f"no habit has {field.name}: write one in hack/origin/habits.py"


def test_whatever_may_be_asked_of_a_user_is_part_of_a_habit() -> None:
    accesses = [access for name in HABITS for access in faults_of(name)[1]]
    for field in dataclasses.fields(Access):
        said = [
            getattr(access, field.name) for access in accesses if getattr(access, field.name) != getattr(Access(), field.name)
        ]
        assert said, f"no habit has {field.name}: write one in hack/origin/habits.py"


def test_habits_come_together_and_of_two_the_first_counts() -> None:
    with Origin() as registry, Origin() as other:
        site = Site(registry, other, Image.of([LAYER]))
        names = ["a redirect to a path", "a redirect to a signed URL", "blobs in chunks", "blobs in gzip", "blobs of an odd type"]
        together(site, names)
        path = f"/v2/{REPOSITORY}{site.first_layer}"
        first = _asked(registry, path)
        assert (first.status, first.headers["Location"]) == (307, f"{path}?moved")
        second = _asked(registry, f"{path}?moved")
        assert second.headers["Location"].startswith(f"{other.url}{path}?signature=")
        assert _asked(other, f"{path}?signature=wrong").status == 403
        third = _asked(other, second.headers["Location"].removeprefix(other.url))
        assert (third.status, third.headers["Content-Encoding"], third.headers["Content-Type"]) == (200, "gzip", "text/html")
        assert third.headers["Transfer-Encoding"] == "chunked"


def test_a_failure_comes_on_top_of_a_habit_and_goes() -> None:
    with Origin() as registry, Origin() as other:
        site = Site(registry, other, Image.of([LAYER]))
        together(site, ["503 for a layer at first", "blobs of an odd type"])
        answers = [_asked(registry, f"/v2/{REPOSITORY}{site.first_layer}") for _ in range(2)]
        assert [(answer.status, answer.headers["Content-Type"]) for answer in answers] == [(503, "text/html"), (200, "text/html")]


def _asked(origin: Origin, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(origin.address, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        return response
    finally:
        connection.close()
