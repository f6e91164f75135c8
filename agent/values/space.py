"""An amount of disk, as settings name it: bytes, or a percentage of the filesystem that it is on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Percent:
    number: int

    def __str__(self) -> str:
        return f"{self.number}%"
