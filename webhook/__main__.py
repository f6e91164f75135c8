"""`darner webhook`: reads the settings, serves until SIGTERM, and says in one line why it cannot."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from agent.build import announce
from agent.process import log_to_stderr
from agent.values.errors import DarnerError
from webhook.server import run
from webhook.settings import PROGRAM, load_webhook_settings


def main(argv: Sequence[str]) -> int:
    try:
        settings = load_webhook_settings(argv, os.environ)
        log_to_stderr(settings.log_level, settings.log_format)
        announce("webhook")
        asyncio.run(run(settings))
    except DarnerError as error:
        said = str(error)
        sys.stderr.write(f"{said if said.startswith(PROGRAM) else f'{PROGRAM}: {said}'}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
