"""Hosts on one machine, and the real programs that run on them, for tests and benchmarks.

`network` makes hosts out of network namespaces, `process` starts programs on them, and a module per program knows how it is
started and what it tells: `registry`, `runtime` (containerd), `darner`. `image` makes an image out of real files, `tap` hears
what a program says to a port, `disk` makes disks slow and memory scarce, `trouble` disturbs connections, and `clock` gives a
process another time. Nothing here asserts anything. All that a lab made is gone when it closes; what a killed run left behind is
swept up by the next one.
"""

from hack.lab.network import Host, Lab
from hack.lab.process import LabError, Process, wait_until

__all__ = ["Host", "Lab", "LabError", "Process", "wait_until"]
