"""What a scenario is: it makes what it needs, measures it as often as it is told, and takes all of it away again.

What is measured beside Darner is measured in turns with it. One that cannot be measured raises: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hack.bench.figures import Measured


@dataclass(frozen=True)
class Options:
    rounds: int = 3
    beside: bool = True
    """Measure other systems in the same run."""
    mbit: int = 100
    image_bytes: int = 64 << 20
    details: bool = False
    """Tell everything that is seen of each round."""


Tell = Callable[[str], None]
"""Called with a line for whoever watches."""
Scenario = Callable[[Options, Tell], list[Measured]]
