"""What the benchmark reads from the programs that it runs is what they print: with few nodes here."""

from __future__ import annotations

from dataclasses import fields

import pytest

from hack.bench import cpu, processes
from hack.bench.cpu import Cost, Costs
from hack.bench.scenario import Options
from hack.bench.suite import FAULTS


def test_a_simulation_gives_its_figure_and_what_scheduling_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "GIBIBYTE_TO_ALL", ("--nodes", "8", "--pieces", "32", "--piece-kib", "256"))
    lines: list[str] = []
    slowest, scheduling = processes.simulation("simulate", (), "max", Options(), lines.append)
    assert slowest.figure.name == "simulate"
    assert slowest.value > 1, "of the bound, and exact"
    assert scheduling.figure.name == "scheduling"
    assert scheduling.note.startswith(f"{7 * 32} pieces"), "each of them comes from the origin once, by a run"
    assert len(lines) == 1

    (with_faults,) = processes.simulation("simulate-faults", FAULTS, "p99", Options(), lines.append)
    assert with_faults.figure.name == "simulate-faults"
    assert f"p99 {with_faults.value:.3f}" in with_faults.note


def test_a_supernode_under_load_gives_its_memory_and_what_a_rollout_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "CONNECTIONS", ("--nodes", "20", "--mib", "8", "--beat-seconds", "0.5"))
    memory, processor = processes.load(Options(), lambda line: None)
    assert (memory.figure.name, processor.figure.name) == ("memory-supernode", "supernode-cpu")
    assert memory.value > 10, "MiB that any Python takes"
    assert processor.note.partition("; ")[::2] == ("320 pieces to 20 connections", "scheduler uncompiled")


def test_what_bytes_cost_has_a_row_in_cpu_seconds_for_the_pull_in_a_swarm(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Cost(1.5, 0.3, 5.0, (4.0, 5.0, 6.0), (1.2, 1.5, 1.8))
    costs = Costs(**{field.name: cost for field in fields(Costs)})
    monkeypatch.setattr(cpu, "measure", lambda rounds: costs)
    by_name = {one.figure.name: one for one in processes.bytes_cost(Options(), lambda line: None)}
    assert by_name["cpu-pull-swarm"].value == 5.0
    assert by_name["cpu-pull-swarm-seconds"].values == (1.2, 1.5, 1.8)
    assert by_name["cpu-pull-swarm-seconds"].figure.unit == "CPU-s/GB"
