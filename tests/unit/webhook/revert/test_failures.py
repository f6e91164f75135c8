"""Un-rewriting, decided: which containers get their original image back, why, and by which patch."""

from __future__ import annotations

import copy
import json
from typing import Any

import jsonpatch
import pytest

from tests.webhook_lab import LOCAL, admitted, container, image_volume, pod
from webhook.pods import DECISION, ORIGINAL_IMAGES
from webhook.revert.causes import Cause
from webhook.revert.failures import failed_pulls, held_back, patch, pulled, running, started_as_written, waiting

LOCAL_NGINX = LOCAL + "docker.io/library/nginx:1"
REFUSED = (
    f'Back-off pulling image "{LOCAL_NGINX}": ErrImagePull: failed to pull and unpack image "{LOCAL_NGINX}": failed to resolve '
    f'reference "{LOCAL_NGINX}": failed to do request: Head "http://127.0.0.1:65001/v2/docker.io/library/nginx/manifests/1": '
    "dial tcp 127.0.0.1:65001: connect: connection refused"
)

STATUSES = {"containers": "containerStatuses", "initContainers": "initContainerStatuses"}


def state(name: str, reason: str | None = None, message: str = "", **states: Any) -> dict[str, Any]:
    return {"name": name, "state": states or ({"waiting": {"reason": reason, "message": message}} if reason else {})}


def rewritten(*containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    subject = admitted(pod(*containers, metadata={"uid": "u1", "resourceVersion": "7"}, **more))
    assert ORIGINAL_IMAGES in subject["metadata"]["annotations"]
    return subject


def with_status(subject: dict[str, Any], *containers: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {**subject, "status": {"phase": "Pending", "containerStatuses": list(containers), **more}}


def back(subject: dict[str, Any]) -> dict[str, str]:
    return {str(pull.place): pull.original for pull in failed_pulls(subject).back}


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "InvalidImageName"])
def test_a_container_whose_pull_has_failed_gets_the_image_that_its_author_wrote(reason: str) -> None:
    subject = with_status(rewritten(container("a", "nginx:1")), state("a", reason, REFUSED))
    (pull,) = failed_pulls(subject).back
    assert (str(pull.place), pull.original, pull.registry) == ("containers/a", "nginx:1", "docker.io")
    assert (pull.cause, pull.words) == (Cause.AGENT_UNREACHABLE, REFUSED)


@pytest.mark.parametrize(
    "status",
    [
        state("a", running={"startedAt": "2026-01-01T00:00:00Z"}),
        state("a", terminated={"exitCode": 1}),
        state("a", "ContainerCreating"),
        state("a", "CrashLoopBackOff", "back-off 10s restarting failed container"),
        state("a", "CreateContainerConfigError"),
        state("a"),
        state("b", "ErrImagePull"),
        {"name": "a", "state": None},
        {"name": "a", "state": {"waiting": "ErrImagePull"}},
        None,
        7,
    ],
)
def test_a_container_that_does_not_wait_for_its_image_keeps_it(status: Any) -> None:
    assert back(with_status(rewritten(container("a", "nginx:1")), status)) == {}


def test_only_the_containers_that_wait_get_theirs_back() -> None:
    subject = rewritten(
        container("a", "nginx:1"),
        container("b", "quay.io/x/y"),
        initContainers=[container("i", "busybox", restartPolicy="Always")],
    )
    subject = with_status(
        subject,
        state("a", running={}),
        state("b", "ErrImagePull", "x"),
        initContainerStatuses=[state("i", "ImagePullBackOff", "y")],
    )
    assert back(subject) == {"initContainers/i": "busybox", "containers/b": "quay.io/x/y"}


@pytest.mark.parametrize("noted", ["nginx:2", "quay.io/evil/nginx:1", "127.0.0.1:65001/x", "", None, 7, "NO NAME"])
def test_a_note_that_does_not_lead_to_the_present_name_is_not_believed(noted: Any) -> None:
    subject = with_status(rewritten(container("a", "nginx:1")), state("a", "ErrImagePull"))
    subject["metadata"]["annotations"][ORIGINAL_IMAGES] = json.dumps({"containers": {"a": noted}})
    assert back(subject) == {}


def test_a_local_name_that_its_author_wrote_stays() -> None:
    subject = with_status(pod(container("a", LOCAL_NGINX)), state("a", "ErrImagePull"))
    assert failed_pulls(subject).back == ()


def test_an_ephemeral_container_and_an_image_volume_are_told_about_because_nobody_can_change_them() -> None:
    subject = rewritten(container("a", "nginx:1"), volumes=[image_volume("v", "quay.io/x/data:1")])
    subject["spec"]["ephemeralContainers"] = [container("debug", LOCAL + "docker.io/library/busybox:1")]
    failed = f'failed to pull and unpack image "{LOCAL}quay.io/x/data:1": not found'
    subject = with_status(
        subject, state("a", "ErrImagePull", failed), ephemeralContainerStatuses=[state("debug", "ImagePullBackOff", "x")]
    )
    failures = failed_pulls(subject)
    assert failures.back == ()
    assert {str(pull.place): pull.original for pull in failures.stuck} == {
        "volumes/v": "quay.io/x/data:1",
        "ephemeralContainers/debug": "docker.io/library/busybox:1",
    }


def test_a_pull_that_the_kubelet_holds_back_is_left_to_it() -> None:
    """FAULTS 58."""
    held, failed = state("a", "ErrImagePull", "pull QPS exceeded"), state("b", "ErrImagePull", "no space left on device")
    subject = with_status(rewritten(container("a", "nginx:1"), container("b", "nginx:2")), held, failed)
    assert back(subject) == {"containers/b": "nginx:2"}
    assert held_back(subject) == {"containers/a"}


def test_a_container_that_was_started_as_its_author_wrote_it_is_told_from_one_with_a_local_name() -> None:
    subject = rewritten(container("a", "nginx:1"), container("b", "nginx:2"), container("c", "nginx:3"))
    for index in (1, 2):
        subject["spec"]["containers"][index]["image"] = f"nginx:{index}"
    started = {"startedAt": "2026-01-01T00:00:00Z"}
    subject = with_status(subject, state("a", running=started), state("b", terminated=started), state("c", "ErrImagePull"))
    assert started_as_written(subject) == {"containers/b"}


def test_the_patch_puts_back_exactly_what_was_looked_at_and_says_so_on_the_pod() -> None:
    subject = with_status(
        rewritten(container("a", "nginx:1"), container("n", "x/y", imagePullPolicy="Never")), state("a", "ErrImagePull", REFUSED)
    )
    before = copy.deepcopy(subject)
    operations = patch(subject, failed_pulls(subject).back)
    after = jsonpatch.apply_patch(subject, operations)
    assert subject == before
    assert [item["image"] for item in after["spec"]["containers"]] == ["nginx:1", "x/y"]
    decision = after["metadata"]["annotations"][DECISION]
    assert decision.startswith(before["metadata"]["annotations"].get(DECISION, ""))
    assert decision.endswith(
        "containers/a: it has its original image back, because its pull through the agent failed (agent-unreachable)"
    )
    assert failed_pulls(after).back == ()
    untouched = copy.deepcopy(after)
    untouched["spec"], untouched["metadata"]["annotations"] = before["spec"], before["metadata"]["annotations"]
    assert untouched == before


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("metadata", "resourceVersion"), "8"),
        (("metadata", "uid"), "u2"),
        (("spec", "containers"), [container("b", "nginx:1"), container("a", LOCAL_NGINX)]),
    ],
)
def test_the_patch_does_nothing_to_a_pod_that_has_changed_since(path: tuple[str, str], value: Any) -> None:
    subject = with_status(rewritten(container("a", "nginx:1")), state("a", "ErrImagePull"))
    operations = patch(subject, failed_pulls(subject).back)
    changed = copy.deepcopy(subject)
    changed[path[0]][path[1]] = value
    with pytest.raises(jsonpatch.JsonPatchTestFailed):
        jsonpatch.apply_patch(changed, operations)


INITIALISING = state("x", "PodInitializing")["state"]


def in_a_row(words: str, *images: str, app: dict[str, Any] | None = None) -> dict[str, str]:
    """A pod whose second init container has failed with these words."""
    init, (last,) = images[:-1], images[-1:]
    subject = rewritten(
        container("app", last), initContainers=[container(f"i{number}", image) for number, image in enumerate(init)]
    )
    statuses = [state("i0", terminated={}), state("i1", "ErrImagePull", words)]
    statuses += [{"name": f"i{number}", "state": INITIALISING} for number in range(2, len(init))]
    return back(with_status(subject, {"name": "app", "state": app or INITIALISING}, initContainerStatuses=statuses))


def test_behind_an_init_container_that_failed_what_would_fail_like_it_gets_its_image_back_at_once() -> None:
    assert in_a_row(REFUSED, "a", "b", "c", "quay.io/x/d") == {
        "initContainers/i1": "b",
        "initContainers/i2": "c",
        "containers/app": "quay.io/x/d",
    }
    broken = "unexpected status from HEAD request to http://127.0.0.1:65001/v2/b: 502 "  # nobody says whose fault it is
    assert in_a_row(broken, "a", "b", "quay.io/x/d", "c") == {"initContainers/i1": "b", "containers/app": "c"}
    assert in_a_row("not found", "a", "b", "c", "b") == {"initContainers/i1": "b", "containers/app": "b"}


@pytest.mark.parametrize("app", [{"running": {}}, {"terminated": {}}, {"waiting": {"reason": "CrashLoopBackOff"}}])
def test_what_has_begun_is_not_foreseen(app: dict[str, Any]) -> None:
    assert in_a_row(REFUSED, "a", "b", "b", app=app) == {"initContainers/i1": "b"}


def test_what_was_pulled_is_told_by_the_containers_that_were_started() -> None:
    subject = rewritten(
        *(container(name, f"quay.io/a/{name}") for name in ("runs", "ended", "waits")),
        container("other", "ghcr.io/a/b"),
        volumes=[{"name": "model", "image": {"reference": "models.example.com/a/b"}}],
    )
    assert list(pulled(subject)) == []
    waits = {"name": "waits", "imageID": "", "state": {"waiting": {"reason": "ImagePullBackOff"}}}
    assert list(pulled(with_status(subject, waits))) == []
    runs = {"name": "runs", "imageID": "sha256:1", "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}}}
    ended = {"name": "ended", "imageID": "sha256:2", "state": {"terminated": {"startedAt": "2026-01-01T00:00:02Z"}}}
    assert sorted(pulled(with_status(subject, runs, ended, waits))) == [
        ("models.example.com", "a/b", "2026-01-01T00:00:02Z"),
        ("quay.io", "a/ended", "2026-01-01T00:00:02Z"),
        ("quay.io", "a/runs", "2026-01-01T00:00:01Z"),
    ]


def test_when_darner_leaves_everything_that_does_not_run_gets_its_image_back_and_what_runs_keeps_it() -> None:
    subject = rewritten(
        *(container(name, f"a/{name}") for name in ("new", "starts", "runs", "crashes")),
        initContainers=[container("done", "a/done")],
    )  # fmt: skip
    subject = with_status(
        subject, state("starts", "ContainerCreating"), state("runs", running={}), state("crashes", "CrashLoopBackOff"),
        initContainerStatuses=[state("done", terminated={})],
    )  # fmt: skip
    assert [pull.original for pull in waiting(subject)] == ["a/new", "a/starts", "a/crashes"]
    assert running(subject) == ("containers/runs",)
    subject["status"]["phase"] = "Succeeded"
    assert waiting(subject) == ()
