"""Runs targets under libFuzzer (atheris), each for so many seconds, and prints what came of it.

    make fuzz OPTIONS='--seconds 600 registry-requests handshake'

What a target has found goes to .fuzz/TARGET/: the inputs that led somewhere new, with which the next run begins, and those that
broke it as crash-*, timeout-* and oom-*. Mend the reason, and put such an input into tests/fuzz/corpus/TARGET/.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import atheris

from hack.lab.darner import TREE

INSTRUMENTED = ["agent", "supernode", "webhook", "h11", "httpcore", "httpx", "jwt", "yaml"]
"""Whose ways count as new ones. Everything else is understood to do the same whichever way it takes."""
with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=INSTRUMENTED):  # it names each module
    from tests.fuzz.target import Target
    from tests.fuzz.targets import TARGETS

FILES = TREE / ".fuzz"
MEMORY_MIB_MAX = 2048
LAST_LINES = 25
LINE_CHARACTERS_MAX = 200


class Result(NamedTuple):
    executions: int
    coverage: int
    broken: list[Path]
    words: str
    """What was said of an input that broke it."""

    def line(self, name: str) -> str:
        return f"{name:24} {self.executions:12,} {self.coverage:10,} {len(self.broken):8}"


def fuzz(target: Target, seconds: int) -> Result:
    directory = FILES / target.name
    inputs, broken, output = directory / "inputs", directory / "broken", directory / "output"
    for path in (inputs, broken):
        path.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(target.examples):
        (inputs / f"example-{number}").write_bytes(example)
    before = set(broken.iterdir())
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={target.bytes_max}",
        f"-timeout={1 + target.bytes_max // 1024}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-artifact_prefix={broken}/",
        "-print_final_stats=1",
        str(inputs),
        *([str(target.corpus[0].parent)] if target.corpus else []),
    ]
    status = _run(target, options, output)
    said = output.read_text(errors="replace")
    return Result(
        _last(r"stat::number_of_executed_units:\s+(\d+)", said) or _last(r"^#(\d+)\s", said),
        _last(r"\bcov: (\d+)", said),
        sorted(set(broken.iterdir()) - before),
        _last_words(said) if status else "",
    )


def _run(target: Target, options: list[str], output: Path) -> int:
    """Exit status of libFuzzer, which ends its process: a child, that has all imported and instrumented already."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(out, 1)
    os.dup2(out, 2)
    logging.getLogger().addHandler(logging.NullHandler())
    atheris.Setup(["fuzz", *options], target.try_on)
    atheris.Fuzz()
    os._exit(0)


def _last_words(output: str) -> str:
    """What Python says of an error, or libFuzzer of an end without one."""
    _, uncaught, traceback = output.partition("=== Uncaught Python exception: ===")
    said = traceback.partition("\n==")[0] if uncaught else output
    return "\n".join(line[:LINE_CHARACTERS_MAX] for line in said.splitlines()[-LAST_LINES:])


def _last(pattern: str, text: str) -> int:
    return int((re.findall(pattern, text, re.MULTILINE) or ["0"])[-1])


def main() -> int:
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"all by default: {', '.join(TARGETS)}")
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default: 60)")
    chosen = parser.parse_args()
    if unknown := set(chosen.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = []
    print(f"{'target':24} {'executions':>12} {'coverage':>10} {'crashes':>8}", flush=True)
    for name in chosen.targets or TARGETS:
        result = fuzz(TARGETS[name], chosen.seconds)
        print(result.line(name), flush=True)
        if result.words or result.broken:
            failed.append(name)
            print("\n".join([result.words, *map(str, result.broken)]), flush=True)
    if failed:
        print(f"something was found: {', '.join(failed)}", file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
