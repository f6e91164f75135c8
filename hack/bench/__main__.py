"""python -m hack.bench: all figures, or some of them; see `--help`, and docs/benchmarks.md for what came out last."""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
import shlex
import sys
import time
import traceback
from pathlib import Path

from rich.console import Console

from hack.bench.figures import Measured, worst_of_each
from hack.bench.machine import described
from hack.bench.parts import joined
from hack.bench.report import Report, as_json, as_markdown, show
from hack.bench.scenario import Options
from hack.bench.suite import chosen, scenarios

PAGE = Path(__file__).resolve().parents[2] / "docs/benchmarks.md"
WIDTH_MIN = 200
"""Of the table where it is not printed on a terminal."""


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m hack.bench",
        description="Measure Darner against what the network allows, and against what a user would take instead. Takes root.",
        epilog=f"Scenarios: {', '.join(scenarios(Options()))}. When all of them have run, docs/benchmarks.md is written.",
    )
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="a scenario, or those that begin so")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round, and nothing beside Darner")
    parser.add_argument("--mbit", type=int, default=100, help="rate of the links in the lab (%(default)s)")
    parser.add_argument("--image-mib", type=int, default=64, help="size of the image in the lab (%(default)s)")
    parser.add_argument("--details", action="store_true", help="tell all that is seen of each round")
    parser.add_argument("--output", choices=("table", "json"), default="table")
    parser.add_argument("--strict", action="store_true", help="fail when a figure is not what it must be")
    parser.add_argument(
        "--join",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="measure nothing: write the page out of what --output json has printed",
    )
    given = parser.parse_args(argv)
    if given.join:
        PAGE.write_text(as_markdown(joined([file.read_text() for file in given.join])))
        return 0
    options = Options(given.rounds, mbit=given.mbit, image_bytes=given.image_mib << 20, details=given.details)
    if given.quick:
        options = dataclasses.replace(options, rounds=1, beside=False)
    try:
        wanted = chosen(given.only, options)
    except ValueError as error:
        parser.error(str(error))
    if os.geteuid() != 0:
        parser.error("network namespaces take root")
    watcher = Console(stderr=True, highlight=False)
    began = time.monotonic()
    measured: list[Measured] = []
    failed: dict[str, str] = {}
    for name, scenario in wanted.items():
        watcher.print(f"[{time.monotonic() - began:4.0f} s] {name}", markup=False)
        try:
            measured += scenario(options, lambda line: watcher.print(line, markup=False, soft_wrap=True))
        except Exception as error:  # the others took minutes: they are told, and this one is named
            traceback.print_exc()
            failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
    report = Report(
        described(),
        datetime.date.today().isoformat(),
        "make bench" + (f" OPTIONS={shlex.quote(shlex.join(argv))}" if argv else ""),
        worst_of_each(measured),
        failed,
    )
    if given.output == "json":
        print(as_json(report))
    else:
        console = Console()
        show(report, console if console.is_terminal else Console(width=WIDTH_MIN))
    if not given.only and not given.quick:
        PAGE.write_text(as_markdown(report))
    for one in report.short:
        watcher.print(
            f"falls short: {one.figure.name}: {one.figure.what}: {one.value:.3f}, must be {one.figure.must:g}", soft_wrap=True
        )
    return 1 if failed or (given.strict and report.short) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
