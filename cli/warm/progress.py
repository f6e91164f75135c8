"""What a pod says of its images on its node, and when there is no more to wait for. Pure: times are arguments."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from agent.values.reference import is_local
from cli.pods import has_its_image, pull_failure
from cli.troubles import short, trouble
from webhook.kube.api import Object, mapping_at, mappings_at, text_at
from webhook.pods import DECISION

FAILURE_SECONDS = 15.0
"""A pull that failed is given this time: kubelets try again after 10 s, and a pod may get its original images back meanwhile."""
GONE = "its pod was deleted"
LEFT = "there was no time left for it"


class PullState(StrEnum):
    WAITING = "waiting"
    PULLED = "pulled"
    FAILED = "failed"


@dataclass(frozen=True)
class Outcome:
    """Of one image on one node."""

    node: str
    image: str
    """As its author wrote it."""
    state: PullState
    why: str = ""
    """In the kubelet's words, why not."""
    without_agent: str = ""
    """Why it was not pulled through the node's agent, in the webhook's words; "" where it was."""
    seconds: float = 0.0
    """Since its pod was asked for."""

    def as_json(self) -> dict[str, Any]:
        shown = {"node": self.node, "image": self.image, "state": self.state.value, "why": self.why}
        return {**shown, "withoutAgent": self.without_agent, "seconds": round(self.seconds, 1)}


@dataclass
class Watched:
    """A pod with a batch of images, from when it is asked for until all of them are pulled, or some cannot be."""

    node: str
    images: tuple[str, ...]
    began: float
    stuck_since: float | None = None
    outcomes: list[Outcome] = field(default_factory=list)
    """As it was seen last."""

    def __post_init__(self) -> None:
        self.outcomes = [Outcome(self.node, image, PullState.WAITING) for image in self.images]

    def see(self, pod: Object | None, now: float) -> None:
        """None: there is no such pod."""
        seconds = now - self.began
        if pod is None:
            self.outcomes = [self._failed(item, GONE, seconds) for item in self.outcomes]
            return
        statuses = {text_at(item, "name"): item for item in mappings_at(mapping_at(pod, "status"), "containerStatuses")}
        why_all = trouble(pod) or ""
        seen = []
        for before, container in zip(self.outcomes, _containers(pod), strict=False):
            status = statuses.get(text_at(container, "name"), {})
            if before.state is PullState.PULLED:
                seen.append(before)
            elif has_its_image(status):
                seen.append(Outcome(self.node, before.image, PullState.PULLED, "", _without_agent(pod, container), seconds))
            else:
                why = _cause(short(pull_failure(status)), before.why) or (why_all if _takes_it_no_more(pod) else "")
                seen.append(Outcome(self.node, before.image, PullState.WAITING, why, "", seconds))
        self.outcomes = seen
        self.stuck_since = None if not self._stuck() else self.stuck_since if self.stuck_since is not None else now

    def settled(self, now: float) -> bool:
        """Whether there is no more to wait for; what still waits then has failed."""
        waiting = [item for item in self.outcomes if item.state is PullState.WAITING]
        if waiting and self.stuck_since is not None and now - self.stuck_since >= FAILURE_SECONDS:
            self.give_up("")
        return not waiting or all(item.state is not PullState.WAITING for item in self.outcomes)

    def give_up(self, why: str) -> None:
        """What still waits has failed, for what the kubelet said last, or else for this."""
        self.outcomes = [self._failed(item, item.why or why, item.seconds) for item in self.outcomes]

    def _stuck(self) -> bool:
        """Whether nothing is on its way any more: each image is there, or there is a reason why not."""
        return all(item.state is not PullState.WAITING or item.why for item in self.outcomes)

    def _failed(self, item: Outcome, why: str, seconds: float) -> Outcome:
        return item if item.state is not PullState.WAITING else Outcome(item.node, item.image, PullState.FAILED, why, "", seconds)


def _containers(pod: Object) -> Iterator[Object]:
    """Ours, in their order; others may have added some."""
    containers = mappings_at(mapping_at(pod, "spec"), "containers")
    return (container for container in containers if text_at(container, "name").startswith("image-"))


def _cause(said: str, before: str) -> str:
    """Older kubelets say why only once, and then that they wait for a while."""
    return before if before and said.startswith("Back-off") else said


def _takes_it_no_more(pod: Object) -> bool:
    """No node takes it, or it was ended: what it waits for does not come by itself."""
    status = mapping_at(pod, "status")
    conditions = mappings_at(status, "conditions")
    unscheduled = any(item.get("type") == "PodScheduled" and item.get("status") == "False" for item in conditions)
    return unscheduled or text_at(status, "phase") == "Failed"


def _without_agent(pod: Object, container: Object) -> str:
    if is_local(text_at(container, "image")):
        return ""
    decision = text_at(mapping_at(mapping_at(pod, "metadata"), "annotations"), DECISION)
    return short(decision) or "the namespace has not opted in, or the webhook did not answer"
