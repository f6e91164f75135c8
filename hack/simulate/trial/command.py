"""Trials from the command line: many seeds with a word about each that fails, or one seed with its trace."""

from __future__ import annotations

import sys
import time

from hack.simulate.trial import trial

TRACE_LINES_SHOWN = 40
"""Of a seed that fails; `--seed N --trace` shows all."""
PROGRESS_SECONDS = 5.0


def run_seeds(first: int, count: int) -> int:
    """The exit status."""
    failed, began, said_at = [], time.monotonic(), time.monotonic()
    for done, seed in enumerate(range(first, first + count)):
        verdict = trial.run(seed)
        if verdict.violations:
            failed.append(seed)
            print(describe(verdict, TRACE_LINES_SHOWN), flush=True)
        if time.monotonic() - said_at > PROGRESS_SECONDS:
            said_at = time.monotonic()
            print(f"{done + 1} of {count} seeds, {len(failed)} failed", file=sys.stderr, flush=True)
    seconds = time.monotonic() - began
    print(f"{count} seeds from {first} on in {seconds:.0f} s, {len(failed)} failed{': ' if failed else ''}{_list(failed)}")
    return 1 if failed else 0


def replay(seed: int) -> int:
    verdict = trial.run(seed, trace_lines_max=1_000_000)
    print(describe(verdict, None))
    return 1 if verdict.violations else 0


def describe(verdict: trial.Verdict, lines_max: int | None) -> str:
    """For people: what the cluster was, what went wrong in it, which promise was broken, and what happened last."""
    trace = verdict.trace if lines_max is None else verdict.trace[-lines_max:]
    told = [
        *trace,
        f"seed {verdict.seed}: {verdict.cluster}; pulls ended at {verdict.pulls_seconds:.1f} s; "
        f"the origin was asked {verdict.origin_blobs:.2f} times",
        *(f"  fault {fault}" for fault in verdict.faults),
        *(f"  BROKEN {violation}" for violation in verdict.violations),
    ]
    return "\n".join(told)


def _list(seeds: list[int]) -> str:
    return " ".join(map(str, seeds))
