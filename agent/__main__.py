"""`darner agent`: the process on every node."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.app import Agent
from agent.process import run
from agent.settings import AgentSettings


def main(argv: Sequence[str]) -> int:
    return run(AgentSettings, "darner agent", Agent, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
