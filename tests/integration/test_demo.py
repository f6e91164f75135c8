"""The demo, as `make demo` runs it: what it promises on the README's first screen, and what it leaves behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]
LAST_LINE = re.compile(r"origin sent (\d\.\d\d)x of the image; 5 nodes hold it; every digest verified")


def demo(*flags: str) -> list[str]:
    """The command; as root in a network namespace of its own, where nobody else has the demo's ports."""
    command = [sys.executable, "-m", "hack.demo", *flags]
    if os.geteuid() != 0:
        return command
    return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *command]


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(demo(*flags), cwd=TREE, env=environment, capture_output=True, text=True, timeout=110, check=False)


def test_the_demo_ends_with_the_line_that_says_that_the_origin_was_asked_once(tmp_path: Path) -> None:
    ended = run(tmp_path)
    assert ended.returncode == 0, ended.stderr
    match = LAST_LINE.fullmatch(ended.stdout.splitlines()[-1])
    assert match, ended.stdout
    assert float(match[1]) <= 1.02
    rows = [re.findall(r"node-\d|\d+\.\d", line) for line in ended.stdout.splitlines() if re.match(r"\W*node-\d \W", line)]
    assert [row[0] for row in rows] == [f"node-{number}" for number in range(1, 6)]
    for _, _, store, peers, supernode, origin in rows:
        assert float(store) == 0
        assert float(peers) + float(supernode) + float(origin) >= 150
    fetched = sum(float(row[5]) for row in rows)
    assert fetched <= 1.02 * sum(float(cell) for cell in rows[0][3:]), "each byte by one of them"


def test_the_demo_fails_and_says_why_when_the_origin_flips_a_byte(tmp_path: Path) -> None:
    ended = run(tmp_path, "--flip-a-byte")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert re.match(r"demo failed: node-\d: .*sha256:[0-9a-f]{64} do not have that digest; the logs are in /", line)
    assert not LAST_LINE.search(ended.stdout)
    (logs,) = tmp_path.iterdir()
    assert line.endswith(str(logs))
    assert (logs / "supernode.err").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_no_process_and_no_file_behind(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        demo(), cwd=TREE, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as running:
        assert running.stdout
        assert any(line.startswith("pulling") for line in running.stdout)
        assert processes_with(tmp_path)
        running.send_signal(number)
        assert running.wait(30) == 130
    assert processes_with(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def processes_with(folder: Path) -> list[str]:
    """The command lines of the processes that were given something in this folder."""
    lines = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(file.read_text().replace("\0", " "))
        except OSError:  # it has ended in the meantime
            continue
    return [line for line in lines if str(folder) in line]
