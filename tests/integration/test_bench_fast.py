"""What the benchmark counts of a pull on links without a rate: each way is measured, and all that Darner did for it counts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hack.bench.fast import LAYERS, fast
from hack.bench.fresh import Cost, cost, costs_described
from hack.bench.image import push, random_image
from hack.bench.scenario import Options
from hack.bench.site import REPOSITORY
from hack.bench.skopeo import copy
from hack.bench.unshaped import TAG, Unshaped, unshaped, wait_until_whole
from hack.lab.process import LabError

IMAGE_BYTES = 8 << 20


@pytest.fixture(scope="module")
def place() -> Iterator[Unshaped]:
    with unshaped() as place:
        push(place.registry, REPOSITORY, TAG, random_image(IMAGE_BYTES, LAYERS))
        yield place


@pytest.mark.needs_root
def test_an_image_goes_directly_through_an_agent_alone_and_with_a_supernode_cold_and_warm() -> None:
    told: list[str] = []
    alone, cold, warm = fast(Options(1), told.append, IMAGE_BYTES)
    assert [one.figure.name for one in (alone, cold, warm)] == ["fast-alone", "fast-cold", "fast-warm"]
    for one in (alone, cold, warm):
        assert one.value > 0
        (direct,) = one.beside["direct, s"]
        assert direct > 0
        assert "CPU-s/GB: agent " in one.note
    assert "supernode" not in alone.note
    assert warm.note.endswith("100% from the supernode")
    assert len(told) == 1


@pytest.mark.needs_root
def test_an_agent_ends_with_its_block_and_the_next_one_has_an_empty_store(place: Unshaped) -> None:
    for _ in range(2):
        with place.agent() as agent:
            copy(place.host, place.agents_door)
            received = agent.received_bytes()
        assert not agent.process.running
        assert received["origin"] >= IMAGE_BYTES
        assert received["store"] == 0
    assert list(place.lab.directory.glob("*-skopeo-*")) == []
    with pytest.raises(LabError):
        copy(place.host, place.agents_door)


@pytest.mark.needs_root
def test_what_a_pull_costs_is_what_its_nodes_took_until_they_were_at_rest(place: Unshaped) -> None:
    with place.supernode() as supernode, place.agent(supernode) as agent:
        found = cost(lambda: copy(place.host, place.agents_door), [agent, supernode])
        wait_until_whole(supernode, LAYERS)
        assert found.seconds > 0
        assert all(taken > 0 for taken in found.cpu_seconds)


def test_what_pulls_cost_is_told_for_a_gb_with_the_median_of_each_process() -> None:
    costs = [Cost(seconds, (seconds / 2, seconds / 4)) for seconds in (2.0, 4.0, 8.0)]
    assert costs_described(costs, 500_000_000) == "4.00 s; CPU-s/GB: agent 4.00, supernode 2.00"
    assert costs_described([Cost(1.0, (0.5,))], 1_000_000_000) == "1.00 s; CPU-s/GB: agent 0.50"
