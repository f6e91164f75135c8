"""The tables of settings, one for each process: flag, default and meaning of each, as `--help` shows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from agent.config import flag
from agent.settings import AgentSettings
from supernode.settings import SupernodeSettings
from webhook.settings import WebhookSettings

PROCESSES: dict[str, type[Any]] = {"agent": AgentSettings, "supernode": SupernodeSettings, "webhook": WebhookSettings}


def settings_table(process: str) -> Callable[[], str]:
    def table() -> str:
        rows = [_row(flag(item.name), item.metadata["default"], item.metadata["help"]) for item in fields(PROCESSES[process])]
        return "\n".join(["| flag | default | what |", "|---|---|---|", *rows])

    return table


def _row(name: str, default: str | None, meaning: str) -> str:
    shown = "required" if default is None else f"`{default}`" if default else "none"
    return f"| `{name}` | {shown} | {meaning} |".replace("<", "&lt;")
