"""Rows 53, 58, 59, 60 and 72 of FAULTS.md: a rewritten pull fails, and the pod gets its original images back from a controller
over a real socket.

The API server's part is played by hack/lab/apiserver.py, which changes pods under our hands, refuses and falls silent.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from hack.lab.apiserver import ApiServer, running
from hack.lab.process import wait_until
from tests.webhook_lab import LOCAL, RunningWebhook, admitted, applied, container, image_volume, originals, pod, review
from webhook.admission.policy import Policy
from webhook.breaker.shared import SharedBreakers
from webhook.kube.api import ObjectName
from webhook.kube.client import Cluster
from webhook.kube.events import Events
from webhook.metrics import REVERT_FAILURES, REVERTED_PODS
from webhook.pods import DECISION, RELEASE, REWRITTEN
from webhook.revert.causes import Cause
from webhook.revert.controller import RevertController

PODS = "/api/v1/namespaces/shop/pods"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/darner-system/leases/darner-webhook"
UNREACHABLE = "dial tcp 127.0.0.1:65001: connect: connection refused"
BROKEN = "unexpected status from HEAD request to http://127.0.0.1:65001/v2/x: 502 Registry At Fault"
REFUSED = "pull access denied, repository does not exist or may require authorization: authorization failed"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    with running() as server:
        yield server


def put(
    api: ApiServer, name: str, words: str | None = UNREACHABLE, image: str = "nginx:1", release: str = "", **metadata: Any
) -> str:
    """A rewritten pod; with words, its pull has failed with them. Returns its path."""
    created = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    given = {"name": name, "uid": f"uid-{name}", "creationTimestamp": created, **metadata}
    document = admitted(pod(container("app", image), metadata=given), Policy(release=release))
    assert document["metadata"]["labels"] == {REWRITTEN: "true"} | ({RELEASE: release} if release else {})
    waits = {"waiting": {"reason": "ErrImagePull", "message": words} if words else {"reason": "ContainerCreating"}}
    document["status"] = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": waits}]}
    api.put(f"{PODS}/{name}", document)
    return f"{PODS}/{name}"


def image_of(api: ApiServer, path: str) -> str:
    with api.lock:
        image: str = api.objects[path]["spec"]["containers"][0]["image"]
        return image


def events_of(api: ApiServer) -> list[tuple[str, str, str]]:
    with api.lock:
        events = [item for path, item in api.objects.items() if "/events/" in path]
    return [(item["reason"], item["involvedObject"]["name"], item["message"]) for item in events]


def reverted(cause: Cause) -> float:
    return REVERTED_PODS.labels(cause)._value.get()


class Controller:
    def __init__(self, api: ApiServer, directory: Path, release: str = "", namespaces: Sequence[str] = ()) -> None:
        self.leads = True
        self.cluster = Cluster({"KUBECONFIG": str(api.kubeconfig(directory / "kubeconfig"))})
        events = Events(self.cluster, "test")
        self.breakers = SharedBreakers(events)
        self.breakers.leading = self.leading
        self.controller = RevertController(self.cluster, events, self.breakers, self.leading, release, namespaces)

    def leading(self) -> bool:
        return self.leads


@contextmanager
def controlled(
    api: ApiServer, directory: Path, leads: bool = True, release: str = "", namespaces: Sequence[str] = ()
) -> Iterator[Controller]:
    """A controller with all its threads, which end with the test."""
    controller, stopped = Controller(api, directory, release, namespaces), threading.Event()
    controller.leads = leads
    threads = [threading.Thread(target=work, args=(stopped,)) for work in controller.controller.working().values()]
    for thread in threads:
        thread.start()
    try:
        yield controller
    finally:
        stopped.set()
        with api.lock:
            api.ended = True
            api.lock.notify_all()
        for thread in threads:
            thread.join()


def test_a_pod_that_fails_while_it_is_watched_gets_its_image_back_with_an_event_and_a_reason(
    api: ApiServer, tmp_path: Path
) -> None:
    before = reverted(Cause.AGENT_UNREACHABLE)
    with controlled(api, tmp_path):
        path = put(api, "web", None)
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        put(api, "web")
        wait_until(lambda: image_of(api, path) == "nginx:1", timeout_seconds=2)
        wait_until(lambda: events_of(api))
    (told,) = events_of(api)
    assert told == (
        "DarnerReverted",
        "web",
        f"The original image nginx:1 is put back, because its pull as {LOCAL}docker.io/library/nginx:1 failed: {UNREACHABLE}",
    )
    assert api.objects[path]["metadata"]["annotations"][DECISION].endswith("(agent-unreachable)")
    assert reverted(Cause.AGENT_UNREACHABLE) == before + 1
    assert len(api.asked("PATCH")) == 1


def test_where_the_webhook_has_no_rights_a_pod_that_fails_is_not_touched(api: ApiServer, tmp_path: Path) -> None:
    document = api.objects.pop(put(api, "web"))
    elsewhere = f"{PODS.replace('shop', 'elsewhere')}/web"
    api.put(elsewhere, document | {"metadata": document["metadata"] | {"namespace": "elsewhere"}})
    with controlled(api, tmp_path, namespaces=("other", "shop")):
        path = put(api, "api")
        wait_until(lambda: image_of(api, path) == "nginx:1")
    assert api.asked("GET /api/v1/namespaces/elsewhere/") == api.asked("PATCH /api/v1/namespaces/elsewhere/") == []
    assert image_of(api, elsewhere) == f"{LOCAL}docker.io/library/nginx:1"


def ran(api: ApiServer, name: str, image: str, state: str = "running") -> None:
    """A rewritten pod whose container was started just now."""
    path = put(api, name, None, image)
    with api.lock:
        document = api.objects[path]
        stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        started = {"name": "app", "imageID": "sha256:1", "state": {state: {"startedAt": stamp}}}
        document["status"]["containerStatuses"] = [started]
        api.put(path, document)


def test_each_replica_learns_from_the_pods_that_run_which_registries_work(api: ApiServer, tmp_path: Path) -> None:
    ran(api, "before", "quay.io/x/y")
    with controlled(api, tmp_path, leads=False) as replica:
        evidence = replica.breakers.evidence
        wait_until(lambda: evidence.proves("quay.io", time.time()))
        assert not evidence.proves("ghcr.io", time.time())
        ran(api, "now", "ghcr.io/x/y", "terminated")
        wait_until(lambda: evidence.proves("ghcr.io", time.time()))
        put(api, "broken", BROKEN, "ghcr.io/x/y")
        wait_until(lambda: not evidence.proves("ghcr.io", time.time()))
        assert evidence.proves("quay.io", time.time())


def test_an_image_that_does_not_exist_says_nothing_about_its_registry(api: ApiServer, tmp_path: Path) -> None:
    with controlled(api, tmp_path, leads=False) as replica:
        ran(api, "web", "quay.io/x/y")
        wait_until(lambda: replica.breakers.evidence.proves("quay.io", time.time()))
        for name, words in (("misspelled", "not found"), ("forbidden", BROKEN.replace("502 Registry At Fault", "403 "))):
            put(api, name, words, "quay.io/x/z")
        ran(api, "later", "ghcr.io/x/y")
        wait_until(lambda: replica.breakers.evidence.proves("ghcr.io", time.time()))
        assert replica.breakers.evidence.proves("quay.io", time.time())


def test_a_volumes_image_is_rewritten_as_soon_as_its_registry_is_known_to_work(api: ApiServer, tmp_path: Path) -> None:
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    names = (f"web-{number}" for number in count())

    def rewritten(webhook: RunningWebhook) -> list[str]:
        # Each under a name of its own: one that is sent again has not come to exist.
        made = pod(container("app", "nginx"), metadata={"name": next(names)}, volumes=[image_volume("model", "ghcr.io/x/model")])
        subject = applied(made, webhook.ask(review(made)))
        return [kind for kind in originals(subject) if kind in ("containers", "volumes")]

    with RunningWebhook(tmp_path, "--lease", "darner-system/darner-webhook", environment=environment) as webhook:
        assert rewritten(webhook) == ["containers"]
        ran(api, "web", "ghcr.io/x/y")
        wait_until(lambda: rewritten(webhook) == ["containers", "volumes"])
        put(api, "broken", BROKEN, "ghcr.io/x/y")
        wait_until(lambda: rewritten(webhook) == ["containers"])


def test_a_pod_of_another_release_is_that_ones_to_look_after(api: ApiServer, tmp_path: Path) -> None:
    theirs = put(api, "theirs", release="two.darner")
    with controlled(api, tmp_path, release="one.darner"):
        ours = put(api, "ours", release="one.darner")
        wait_until(lambda: image_of(api, ours) == "nginx:1")
        wait_until(lambda: events_of(api))
    assert image_of(api, theirs).startswith(LOCAL)
    assert [name for _, name, _ in events_of(api)] == ["ours"]


def test_pods_that_failed_before_the_controller_came_get_theirs_back_too(api: ApiServer, tmp_path: Path) -> None:
    paths = [put(api, f"web-{number}") for number in range(40)]
    with controlled(api, tmp_path):
        wait_until(lambda: {image_of(api, path) for path in paths} == {"nginx:1"})
        wait_until(lambda: len(events_of(api)) == 40)
    assert len(api.asked("PATCH")) == 40


def test_a_container_that_has_begun_to_run_between_our_look_and_our_patch_is_not_patched(
    api: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(api, "web")
    controller = Controller(api, tmp_path)
    ask = controller.cluster.ask

    def runs_meanwhile(method: str, *arguments: Any, **more: Any) -> Any:
        if method == "PATCH":
            with api.lock:
                document = dict(api.objects[path])
                document["status"] = {"phase": "Running", "containerStatuses": [{"name": "app", "state": {"running": {}}}]}
                api.put(path, document)
        return ask(method, *arguments, **more)

    monkeypatch.setattr(controller.cluster, "ask", runs_meanwhile)
    assert controller.controller.look_after(ObjectName("shop", "web"))
    assert image_of(api, path).startswith(LOCAL)
    assert len(api.asked("PATCH")) == 1
    assert events_of(api) == []


def test_what_nobody_can_change_is_told_once_while_the_rest_is_put_back(api: ApiServer, tmp_path: Path) -> None:
    path = put(api, "web")
    with api.lock:
        document = api.objects[path]
        document["spec"]["ephemeralContainers"] = [container("debug", LOCAL + "docker.io/library/busybox:1")]
        waits = {"waiting": {"reason": "ImagePullBackOff", "message": UNREACHABLE}}
        document["status"]["ephemeralContainerStatuses"] = [{"name": "debug", "state": waits}]
        api.put(path, document)
    with controlled(api, tmp_path):
        wait_until(lambda: image_of(api, path) == "nginx:1")
        put(api, "last")
        wait_until(lambda: len(events_of(api)) >= 3)
        wait_until(lambda: len(api.asked(f"GET {path}")) >= 2)
    told = sorted((reason, name) for reason, name, _ in events_of(api))
    assert told == [("DarnerCannotRevert", "web"), ("DarnerReverted", "last"), ("DarnerReverted", "web")]
    (words,) = [message for reason, _, message in events_of(api) if reason == "DarnerCannotRevert"]
    assert words.startswith(
        f"The pull of docker.io/library/busybox:1 as {LOCAL}docker.io/library/busybox:1 failed, and Kubernetes"
    )


def test_a_pod_that_is_gone_or_going_is_left(api: ApiServer, tmp_path: Path) -> None:
    controller = Controller(api, tmp_path)
    assert controller.controller.look_after(ObjectName("shop", "gone"))
    put(api, "going", deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
    assert controller.controller.look_after(ObjectName("shop", "going"))
    assert api.asked("PATCH") == []


@pytest.mark.parametrize("status", [403, 422, 500])
def test_a_patch_that_is_refused_is_tried_again_without_a_flood(api: ApiServer, tmp_path: Path, status: int) -> None:
    before = REVERT_FAILURES._value.get()
    api.refusals["PATCH"] = status
    path = put(api, "web")
    with controlled(api, tmp_path):
        wait_until(lambda: REVERT_FAILURES._value.get() >= before + 2)
        assert len(api.asked("PATCH")) <= 12
        with api.lock:
            api.refusals.clear()
        wait_until(lambda: image_of(api, path) == "nginx:1")
        wait_until(lambda: len(events_of(api)) == 1)


def test_an_event_that_is_refused_keeps_no_pod_waiting(api: ApiServer, tmp_path: Path) -> None:
    api.refusals["POST /api/v1/namespaces/shop/events"] = 403
    path = put(api, "web")
    with controlled(api, tmp_path):
        wait_until(lambda: image_of(api, path) == "nginx:1")
        wait_until(lambda: api.asked("POST"))


def test_an_api_server_that_forgets_and_one_that_is_away_are_caught_up_with(api: ApiServer, tmp_path: Path) -> None:
    with controlled(api, tmp_path):
        wait_until(lambda: api.asked("GET /api/v1/pods"))
        with api.lock:
            api.refusal = 503
            api.oldest = api.version + 100
            api.ended = True  # every watch breaks off
            api.lock.notify_all()
        path = put(api, "web")
        with api.lock:
            api.refusal, api.ended, api.oldest = 0, False, 0
        wait_until(lambda: image_of(api, path) == "nginx:1")


def test_only_the_leader_acts_and_who_becomes_it_knows_everything_at_once(api: ApiServer, tmp_path: Path) -> None:
    path = put(api, "web")
    with controlled(api, tmp_path, leads=False) as controller:
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        assert image_of(api, path).startswith(LOCAL)
        controller.leads = True
        wait_until(lambda: image_of(api, path) == "nginx:1", timeout_seconds=3)


def test_three_pods_of_a_registry_that_fails_pause_it_and_say_so(api: ApiServer, tmp_path: Path) -> None:
    with controlled(api, tmp_path) as controller:
        for number in range(3):
            put(api, f"web-{number}", BROKEN, f"reg.example.com/app:{number}")
        wait_until(lambda: any(reason == "DarnerLeftAlone" for reason, _, _ in events_of(api)))
        now = datetime.now(UTC).timestamp()
        assert controller.breakers.now().left_alone("reg.example.com", None, now)
        assert controller.breakers.now().left_alone("docker.io", None, now) is None
    (words,) = [message for reason, _, message in events_of(api) if reason == "DarnerLeftAlone"]
    assert words.startswith("the registry reg.example.com is left alone for 60 s")


@pytest.mark.parametrize("words", [UNREACHABLE, "nginx: not found", "authorization failed"])
def test_a_node_without_its_agent_and_an_image_that_its_registry_refuses_pause_no_registry(
    api: ApiServer, tmp_path: Path, words: str
) -> None:
    with controlled(api, tmp_path) as controller:
        paths = [put(api, f"web-{number}", words) for number in range(5)]
        wait_until(lambda: {image_of(api, path) for path in paths} == {"nginx:1"})
        wait_until(lambda: len(events_of(api)) == 5)
        assert controller.breakers.now().left_alone("docker.io", None, datetime.now(UTC).timestamp()) is None


def test_pods_whose_pulls_the_kubelet_holds_back_keep_their_images_and_charge_nobody(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 58."""
    with controlled(api, tmp_path) as controller:
        paths = [put(api, f"web-{number}", "pull QPS exceeded") for number in range(3)]
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        for number in range(3):
            put(api, f"web-{number}", 'Back-off pulling image "x"')  # as kubelets until 1.30 go on
        last = put(api, "last")
        wait_until(lambda: image_of(api, last) == "nginx:1")
        assert all(image_of(api, path).startswith(LOCAL) for path in paths)
        assert controller.breakers.publish() == "{}"


@pytest.mark.parametrize(
    "words",
    [
        "failed to extract layer: write /var/lib/containerd/x: no space left on device",
        "rpc error: code = Unavailable desc = transport is closing",
        "rpc error: code = Canceled desc = failed to pull and unpack image: context canceled",
        "SignatureValidationFailed: Source image rejected: A signature was required, but no signature exists",
        BROKEN.replace("502 Registry At Fault", "504 "),
        BROKEN.replace("502 Registry At Fault", "500 "),
    ],
)
def test_the_nodes_own_troubles_and_words_that_blame_nobody_are_put_back_and_charge_no_registry(
    api: ApiServer, tmp_path: Path, words: str
) -> None:
    """FAULTS 59."""
    with controlled(api, tmp_path) as controller:
        paths = [put(api, f"web-{number}", words) for number in range(3)]
        wait_until(lambda: {image_of(api, path) for path in paths} == {"nginx:1"})
        wait_until(lambda: len(events_of(api)) == 3)
        assert controller.breakers.publish() == "{}"


def runs_as_written(api: ApiServer, path: str) -> None:
    """The pod has its original image back, and its container runs by it."""
    wait_until(lambda: not image_of(api, path).startswith(LOCAL))
    with api.lock:
        document = api.objects[path]
        state = {"running": {"startedAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}
        document["status"] = {
            "phase": "Running",
            "containerStatuses": [{"name": "app", "imageID": "sha256:1", "state": state}],
        }
        api.put(path, document)


def test_what_only_the_nodes_have_a_credential_for_is_left_alone_after_three_pods(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 60."""
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    with RunningWebhook(tmp_path, "--lease", "darner-system/darner-webhook", environment=environment) as webhook:
        for number in range(3):
            runs_as_written(api, put(api, f"web-{number}", REFUSED, f"reg.example.com/shop/app:{number}"))
        names = (f"other-{number}" for number in count())

        def asked() -> tuple[dict[str, Any], dict[str, Any]]:
            """Each under a name of its own: one that is sent again has not come to exist."""
            made = pod(container("a", "reg.example.com/other/app:9"), container("b", "nginx"), metadata={"name": next(names)})
            return made, webhook.ask(review(made))

        wait_until(lambda: "left alone" in str(asked()[1].get("auditAnnotations")))
        assert list(originals(applied(*asked()))["containers"]) == ["b"]
        assert 'darner_webhook_paused{kind="credential"} 1.0' in webhook.get("/metrics")[1]
        assert 'darner_webhook_left_alone_total{reason="node-credential"}' in webhook.get("/metrics")[1]
    (words,) = [message for reason, _, message in events_of(api) if reason == "DarnerLeftAlone"]
    assert words.startswith("reg.example.com is left alone for 6 h for pods that have no pull secret for it")


def test_a_registry_that_others_pull_from_is_left_alone_for_that_repository_alone(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 60."""
    ran(api, "public", "reg.example.com/public/app:1")
    with controlled(api, tmp_path) as controller:
        wait_until(lambda: controller.breakers.evidence.proves("reg.example.com", time.time()))
        for number in range(3):
            runs_as_written(api, put(api, f"web-{number}", REFUSED, f"reg.example.com/shop/app:{number}"))
        wait_until(lambda: "credential reg.example.com/shop/app" in controller.breakers.publish())


def test_jobs_that_are_given_up_at_their_first_refusal_count_for_their_repository(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 60: Tekton, Airflow and GitLab do not wait for what is put back."""
    with controlled(api, tmp_path) as controller:
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        for number in range(3):
            path = put(api, f"job-{number}", REFUSED, f"reg.example.com/shop/job:{number}")
            wait_until(lambda path=path: not image_of(api, path).startswith(LOCAL))
            api.remove(path)
        wait_until(lambda: "credential reg.example.com/shop/job" in controller.breakers.publish())


def test_pods_with_a_pull_secret_of_their_own_say_nothing_about_others(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 60: a credential that has gone bad is its owner's trouble."""
    with controlled(api, tmp_path) as controller:
        for number in range(3):
            path = put(api, f"web-{number}", None, "reg.example.com/shop/app:1")
            with api.lock:
                document = api.objects[path]
                document["spec"]["imagePullSecrets"] = [{"name": "mine"}, {"name": "darner-mine"}]
                waits = {"waiting": {"reason": "ErrImagePull", "message": REFUSED}}
                document["status"]["containerStatuses"] = [{"name": "app", "state": waits}]
                api.put(path, document)
            runs_as_written(api, path)
        ran(api, "last", "ghcr.io/a/b")
        wait_until(lambda: controller.breakers.evidence.proves("ghcr.io", time.time()))
        assert controller.breakers.publish() == "{}"


def test_a_pod_made_from_another_pod_is_taken_back_when_its_pull_fails(api: ApiServer, tmp_path: Path) -> None:
    """FAULTS 72."""
    copied = admitted(pod(container("app", LOCAL + "quay.io/shop/app:1"), metadata={"name": "copy", "uid": "u"}))
    waits = {"waiting": {"reason": "ErrImagePull", "message": UNREACHABLE}}
    copied["status"] = {"phase": "Pending", "containerStatuses": [{"name": "app", "state": waits}]}
    with controlled(api, tmp_path):
        api.put(f"{PODS}/copy", copied)
        wait_until(lambda: image_of(api, f"{PODS}/copy") == "quay.io/shop/app:1")


def test_an_operator_that_deletes_each_pod_that_differs_is_left_alone_after_five(api: ApiServer, tmp_path: Path) -> None:
    reference = {"apiVersion": "example.com/v1", "kind": "Database", "name": "db", "uid": "o1", "controller": True}
    with controlled(api, tmp_path, leads=True) as controller:
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        for number in range(5):
            again: dict[str, Any] = {"uid": str(number), "ownerReferences": [reference]}
            path = put(api, "db-1", None, **again)
            put(api, "db-1", None, **again, deletionTimestamp="2026-01-01T00:00:00Z", deletionGracePeriodSeconds=30)
            assert events_of(api) == []
            api.remove(path)
        wait_until(lambda: events_of(api))
        assert "db" in str(controller.breakers.publish())
    (told,) = events_of(api)
    assert told[:2] == ("DarnerLeftAlone", "db")
    assert told[2].startswith("the owner shop/Database.example.com/db is left alone for 60 s")


def test_pods_of_one_owner_that_are_deleted_together_or_have_done_their_work_are_no_operators(
    api: ApiServer, tmp_path: Path
) -> None:
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "o1", "controller": True}
    with controlled(api, tmp_path) as controller:
        wait_until(lambda: api.asked("GET /api/v1/pods?labelSelector=darner.dev%2Frewritten%3Dtrue&watch"))
        paths = [put(api, f"web-{number}", None, ownerReferences=[reference]) for number in range(20)]
        for path in paths:
            api.remove(path)
        for number in range(10):
            path = put(api, f"job-{number}", None, ownerReferences=[{**reference, "kind": "Runner"}])
            done = dict(api.objects[path], status={"phase": "Succeeded"})
            api.put(path, done)
            api.remove(path)
        put(api, "last")
        wait_until(lambda: events_of(api))
        assert controller.breakers.publish() == "{}"


def test_two_replicas_share_what_is_left_alone_and_the_second_takes_over_when_the_first_ends(
    api: ApiServer, tmp_path: Path
) -> None:
    environment = {"KUBECONFIG": str(api.kubeconfig(tmp_path / "kubeconfig"))}
    replicas = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        replicas.append(RunningWebhook(tmp_path / name, "--lease", "darner-system/darner-webhook", environment=environment))
    with replicas[0] as first:
        wait_until(lambda: LEASE in api.objects)
        with replicas[1] as second:
            for number in range(3):
                put(api, f"web-{number}", BROKEN, f"reg.example.com/app:{number}")
            subject = pod(container("a", "reg.example.com/app:9"))
            for replica in (first, second):
                wait_until(lambda replica=replica: "keep failing" in str(replica.ask(review(subject)).get("auditAnnotations")))
            assert first.process.stop() == 0
            path = put(api, "late")
            wait_until(lambda: image_of(api, path) == "nginx:1", timeout_seconds=5)
            assert "darner_webhook_leading 1.0" in second.get("/metrics")[1]
