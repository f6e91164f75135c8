"""The state diagram of a download's planner, from the table of its steps, in Mermaid's language, which code hosts draw."""

from __future__ import annotations

from agent.download.planner import STEPS, Planner


def planner_diagram() -> str:
    lines = [f"{before.value} --> {after.value}: {when}" for (before, after), when in STEPS.items()]
    last = sorted({after.value for _, after in STEPS} - {before.value for before, _ in STEPS})
    lines = [f"[*] --> {Planner().mode.value}", *lines, *(f"{state} --> [*]" for state in last)]
    return "\n".join(["```mermaid", "stateDiagram-v2", *(f"    {line}" for line in lines), "```\n"])
