"""The page out of several runs: what each printed with `--output json`, joined.

A whole run takes longer than a machine may be free. Each figure still comes from one run, with whatever stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from hack.bench.figures import BY_NAME, Measured, worst_of_each
from hack.bench.report import Report


def joined(documents: Sequence[str]) -> Report:
    """All commands and all figures. Raises ValueError for runs on different machines: their figures do not belong together."""
    runs = [json.loads(document) for document in documents]
    machines = {run["machine"] for run in runs}
    if len(machines) != 1:
        raise ValueError(f"these runs are from {len(machines)} machines: {'; '.join(sorted(machines))}")
    measured = [
        Measured(BY_NAME[figure["name"]], figure["rounds"], figure["beside"], figure["note"])
        for run in runs
        for figure in run["figures"]
    ]
    failed = {name: reason for run in runs for name, reason in run["failed"].items()}
    dates = sorted({run["date"] for run in runs})
    return Report(
        machines.pop(), " to ".join(dict.fromkeys((dates[0], dates[-1]))), _commands(runs), worst_of_each(measured), failed
    )


def _commands(runs: Sequence[dict[str, str]]) -> str:
    """Each on a line of its own, indented as the page has it."""
    return "\n    ".join(run["command"] for run in runs)
