"""`darner supernode`: tracker, scheduler and cache."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.process import run
from supernode.app import Supernode
from supernode.settings import SupernodeSettings


def main(argv: Sequence[str]) -> int:
    return run(SupernodeSettings, "darner supernode", Supernode, argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
