"""What a pod's state means for its images."""

from __future__ import annotations

from typing import Any

import pytest

from agent.values.reference import to_local
from cli.pods import has_its_image
from cli.warm.progress import FAILURE_SECONDS, GONE, LEFT, PullState, Watched
from webhook.pods import DECISION

IMAGE, OTHER = "reg.test/app:1", "reg.test/other:1"
RUNNING: dict[str, Any] = {"running": {}}
CREATING = {"waiting": {"reason": "ContainerCreating"}}
FAILED = {"waiting": {"reason": "ErrImagePull", "message": "reg.test/other:1: not found"}}
BACK_OFF = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "reg.test/other:1"'}}


def pod(*states: dict[str, Any], image: str = to_local(IMAGE), **status: Any) -> dict[str, Any]:
    statuses = [{"name": f"image-{number}", "state": state} for number, state in enumerate(states)]
    containers = [{"name": f"image-{number}", "image": image} for number in range(len(states))]
    return {"spec": {"containers": containers}, "status": {"containerStatuses": statuses, **status}}


@pytest.fixture
def watched() -> Watched:
    return Watched("n0", (IMAGE, OTHER), began=100.0)


def states(watched: Watched) -> list[PullState]:
    return [outcome.state for outcome in watched.outcomes]


def test_nothing_is_settled_before_the_kubelet_has_said_something(watched: Watched) -> None:
    assert not watched.settled(100.0)
    watched.see(pod(CREATING, CREATING), 101.0)
    assert (states(watched), watched.settled(200.0)) == ([PullState.WAITING] * 2, False)


def test_an_image_is_there_once_its_container_is_beyond_the_pull_whether_it_runs_or_not(watched: Watched) -> None:
    watched.see(pod(RUNNING, {"terminated": {"reason": "StartError", "exitCode": 128}}), 104.0)
    assert (states(watched), watched.settled(104.0)) == ([PullState.PULLED] * 2, True)
    assert [outcome.seconds for outcome in watched.outcomes] == [4.0, 4.0]
    assert not has_its_image({"state": {"terminated": {"reason": "ContainerStatusUnknown"}}})


def test_a_pull_that_fails_is_given_another_try_and_then_told_in_the_kubelets_words(watched: Watched) -> None:
    watched.see(pod(RUNNING, FAILED), 101.0)
    assert not watched.settled(101.0)
    watched.see(pod(RUNNING, BACK_OFF), 101.0 + FAILURE_SECONDS)
    assert watched.settled(101.0 + FAILURE_SECONDS)
    assert [(item.state, item.why) for item in watched.outcomes] == [
        (PullState.PULLED, ""),
        (PullState.FAILED, "reg.test/other:1: not found"),
    ]


def test_a_pod_that_gets_its_original_images_back_has_failed_in_nothing(watched: Watched) -> None:
    watched.see(pod(FAILED, FAILED), 101.0)
    back = pod(RUNNING, RUNNING, image=IMAGE)
    back["metadata"] = {"annotations": {DECISION: "containers/image-0: put back"}}
    watched.see(back, 108.0)
    assert watched.settled(108.0)
    assert [item.without_agent for item in watched.outcomes] == ["containers/image-0: put back"] * 2


def test_a_pod_that_nobody_rewrote_is_told_as_pulled_without_an_agent(watched: Watched) -> None:
    watched.see(pod(RUNNING, RUNNING, image=IMAGE), 101.0)
    assert "has not opted in" in watched.outcomes[0].without_agent


def test_a_pod_that_no_node_takes_fails_with_the_schedulers_words(watched: Watched) -> None:
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "Insufficient memory"}
    for now in (101.0, 101.0 + FAILURE_SECONDS):
        watched.see(pod({}, {}, conditions=[unscheduled]), now)
    assert watched.settled(101.0 + FAILURE_SECONDS)
    assert {item.why for item in watched.outcomes} == {"no node takes it: Insufficient memory"}


def test_what_somebody_else_adds_to_the_pod_is_not_looked_at(watched: Watched) -> None:
    seen = pod(RUNNING, RUNNING)
    seen["spec"]["containers"].insert(0, {"name": "sidecar", "image": "mesh:1"})
    watched.see(seen, 101.0)
    assert states(watched) == [PullState.PULLED] * 2


def test_a_pod_that_was_deleted_and_a_time_that_is_over_say_so(watched: Watched) -> None:
    watched.see(pod(RUNNING, CREATING), 101.0)
    watched.see(None, 102.0)
    assert [(item.state, item.why) for item in watched.outcomes] == [(PullState.PULLED, ""), (PullState.FAILED, GONE)]
    late = Watched("n1", (IMAGE,), began=100.0)
    late.give_up(LEFT)
    assert (late.settled(101.0), late.outcomes[0].why) == (True, LEFT)
