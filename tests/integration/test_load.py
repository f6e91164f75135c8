"""Many agents on one supernode process: the load test of `python -m hack.load`, with few enough nodes for every machine."""

from __future__ import annotations

import json

import pytest

from agent.values.pieces import PIECE_BYTES_CUT_MIN
from hack.load.__main__ import main
from hack.load.measure import Load, measure

NODES, PIECES = 200, 16


@pytest.mark.parametrize("node_mbit", [0.0, 1000.0])
def test_two_hundred_nodes_get_a_blob_and_come_back_after_the_supernode_was_killed(node_mbit: float) -> None:
    figures = measure(Load(NODES, PIECES * PIECE_BYTES_CUT_MIN, node_mbit, beat_seconds=0.2))
    assert figures.nodes == NODES
    assert figures.pieces == NODES * PIECES
    assert figures.threads < 20, "however many connections there are"
    assert figures.resident_bytes <= figures.resident_bytes_max
    assert figures.messages >= 2 * NODES


def test_the_figures_are_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--nodes", "20", "--mib", "1", "--mbit", "0", "--beat-seconds", "0.1", "--output", "json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["pieces"] == 20 * 2
    assert figures["cpu_seconds_per_million"] >= 0
