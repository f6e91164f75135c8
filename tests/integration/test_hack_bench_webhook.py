"""The webhook's measurement measures what it says: distinct pods like real ones, rewritten by the process as the chart has it."""

from __future__ import annotations

import json
import random

import pytest

from hack.bench.reviews import PULL_SECRET, as_fast_as_it_goes, at_a_rate, review
from hack.bench.webhook import following, webhook
from hack.lab.process import wait_until
from tests.webhook_lab import admitted, originals


def test_questions_are_distinct_and_about_pods_like_real_ones() -> None:
    seed = random.Random(1)
    questions = [review(seed) for _ in range(20)]
    assert len({question["request"]["uid"] for question in questions}) == 20
    for question in questions:
        assert 6_000 < len(json.dumps(question)) < 12_000
        noted = originals(admitted(question["request"]["object"]))
        assert {kind: len(images) for kind, images in noted.items()} == {"initContainers": 1, "containers": 3}


def test_the_real_process_is_asked_with_pull_secrets_ready_agents_and_pods_to_follow() -> None:
    with webhook() as (process, target, api), following(api):
        assert as_fast_as_it_goes(target, 0.5, 2, 1) > 0
        times = at_a_rate(target, 1.0, 20, 1)
        assert times
        assert min(times) > 0
        assert f"/api/v1/namespaces/shop/secrets/darner-{PULL_SECRET}" in api.objects
        wait_until(lambda: "watch=true" in " ".join(api.asked("GET /api/v1/pods?")))
        assert process.running


def test_a_pod_that_is_not_rewritten_is_no_figure() -> None:
    with webhook() as (_, target, api):
        with api.lock:
            for path in [path for path in api.objects if "/endpointslices/" in path]:
                api.remove(path)
        with pytest.raises(ValueError, match="was not rewritten"):
            as_fast_as_it_goes(target, 10, 1, 1)
