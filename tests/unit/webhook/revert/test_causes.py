"""By what a pull has failed, told from the words of the runtimes."""

from __future__ import annotations

import time

import pytest

from tests.webhook_lab import LOCAL
from webhook.revert.causes import Cause, cause_of, shortened

LOCAL_NGINX = LOCAL + "docker.io/library/nginx:1"
REFUSED = (
    f'Back-off pulling image "{LOCAL_NGINX}": ErrImagePull: failed to pull and unpack image "{LOCAL_NGINX}": failed to resolve '
    f'reference "{LOCAL_NGINX}": failed to do request: Head "http://127.0.0.1:65001/v2/docker.io/library/nginx/manifests/1": '
    "dial tcp 127.0.0.1:65001: connect: connection refused"
)
RESOLVE = 'failed to pull and unpack image "127.0.0.1:65001/r/a:1": failed to resolve reference "127.0.0.1:65001/r/a:1": '


@pytest.mark.parametrize(
    ("words", "cause"),
    [
        (REFUSED, Cause.AGENT_UNREACHABLE),
        (RESOLVE + 'failed to do request: Head "http://127.0.0.1:65001/v2/r/a/manifests/1": EOF', Cause.AGENT_UNREACHABLE),
        (
            RESOLVE
            + 'failed to do request: Head "http://127.0.0.1:65001/v2/x": read tcp 127.0.0.1:4->127.0.0.1:65001: i/o timeout',
            Cause.AGENT_UNREACHABLE,
        ),
        ("rpc error: code = NotFound desc = " + RESOLVE + "127.0.0.1:65001/r/a:1: not found", Cause.NOT_FOUND),
        (
            RESOLVE + "pull access denied, repository does not exist or may require authorization: authorization failed",
            Cause.DENIED,
        ),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 401 Unauthorized", Cause.DENIED),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a/manifests/502: 401 ", Cause.DENIED),
        (RESOLVE + "pulling from host 127.0.0.1:65001 failed with status code [manifests 502]: 403 ", Cause.FORBIDDEN),
        (
            RESOLVE + "pulling from host 127.0.0.1:65001 failed with status code [manifests 401]: 502 Registry At Fault",
            Cause.FAILED,
        ),
        (RESOLVE + "failed to authorize: failed to fetch anonymous token: unexpected status: 401 Unauthorized", Cause.DENIED),
        ("initializing source docker://127.0.0.1:65001/r/a:1: reading manifest 1 in r/a: manifest unknown", Cause.NOT_FOUND),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 403 Forbidden", Cause.FORBIDDEN),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 421 ", Cause.NOT_ASKED),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 429 Too Many Requests", Cause.THROTTLED),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 502 Registry At Fault", Cause.FAILED),
        (RESOLVE + "unexpected status code [manifests 1]: 504 Registry At Fault", Cause.FAILED),
        (
            "initializing source docker://127.0.0.1:65001/r/a:1: reading manifest 1 in 127.0.0.1:65001/r/a: received unexpected "
            "HTTP status: 502 Registry At Fault",
            Cause.FAILED,
        ),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 502 Bad Gateway", Cause.UNCLEAR),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/a: 504 ", Cause.UNCLEAR),
        (
            "failed to copy: httpReadSeeker: failed open: unexpected status code http://127.0.0.1:65001/v2/r/a: 504  - Server "
            "message: unavailable: neither other nodes nor the registry r answered in time",
            Cause.UNCLEAR,
        ),
        (RESOLVE + "unexpected status from HEAD request to http://127.0.0.1:65001/v2/Registry At Fault: 500 ", Cause.UNCLEAR),
        ("the registry r cannot be reached: dial tcp 10.0.0.1:443: connect: connection refused", Cause.UNCLEAR),
        ('failed to pull "127.0.0.1:65001/r/not-found/unauthorized:429": something new', Cause.UNCLEAR),
        ("something new", Cause.UNCLEAR),
        ('Back-off pulling image "127.0.0.1:65001/r/a:1"', Cause.UNTOLD),
        ("", Cause.UNTOLD),
    ],
)
def test_the_runtimes_words_tell_what_a_pull_has_failed_by(words: str, cause: Cause) -> None:
    assert cause_of(words) == cause


@pytest.mark.parametrize("before", ["", f'Back-off pulling image "{LOCAL_NGINX}": ErrImagePull: '])
def test_a_pull_that_the_kubelet_holds_back_has_not_failed(before: str) -> None:
    """FAULTS 58."""
    assert cause_of(before + "pull QPS exceeded") is Cause.HELD_BACK


@pytest.mark.parametrize(
    "words",
    [
        RESOLVE + "failed to copy: write /var/lib/containerd/io.containerd.content.v1.content/ingest/1: no space left on device",
        'rpc error: code = Unavailable desc = connection error: desc = "transport: Error while dialing: dial unix '
        '/run/containerd/containerd.sock: connect: connection refused"',
        "rpc error: code = Unavailable desc = transport is closing",
        "rpc error: code = Unavailable desc = error reading from server: EOF",
        "rpc error: code = Unknown desc = server is not initialized yet",
        "rpc error: code = Canceled desc = " + RESOLVE + "context canceled",
        f"SignatureValidationFailed: image pull failed for {LOCAL_NGINX} because the signature validation failed: Source image "
        "rejected: A signature was required, but no signature exists",
        'pinging container registry 127.0.0.1:65001: Get "https://127.0.0.1:65001/v2/": http: server gave HTTP response to '
        "HTTPS client",
        "copying system image from manifest list: Source image rejected: Running image docker://x is rejected by policy.",
    ],
)
def test_the_nodes_own_troubles_are_told_from_a_registrys(words: str) -> None:
    """FAULTS 59."""
    cause = cause_of(words)
    assert cause is Cause.NODE
    assert not cause.registry_is_at_fault
    assert not cause.registry_is_in_doubt


@pytest.mark.parametrize("filling", ["x", "[", "status ", "a:", "x.y/"])
def test_the_cause_in_a_message_of_many_kilobytes_is_found_at_once(filling: str) -> None:
    words = f"{RESOLVE}{filling * (56_000 // len(filling))}: unexpected status: 404 Not Found"
    begun = time.thread_time()
    assert cause_of(words) is Cause.NOT_FOUND
    assert time.thread_time() - begun < 0.2


def test_a_registry_is_at_fault_only_where_neither_the_node_nor_the_image_is() -> None:
    assert {cause for cause in Cause if cause.registry_is_at_fault} == {Cause.FAILED, Cause.NOT_ASKED, Cause.THROTTLED}
    in_doubt = {cause for cause in Cause if cause.registry_is_in_doubt}
    assert in_doubt == {Cause.FAILED, Cause.NOT_ASKED, Cause.THROTTLED, Cause.UNCLEAR}


def test_words_that_are_too_long_keep_their_end_where_the_answer_is() -> None:
    words = "failed to pull " + "x" * 2000 + ": 502 Bad Gateway"
    assert len(shortened(words)) == 600
    assert shortened(words).endswith(": 502 Bad Gateway")
    assert shortened("short") == "short"
