"""What crosses between two zones in a rollout, counted by the kernel of every node, headers included.

The supernode stands in the first zone, so what it sends to the other one crosses, too. The least that is possible is one copy of
the image. What comes from the origin is not counted: it is in neither.
"""

from __future__ import annotations

import json

from hack.bench.site import Site
from hack.lab import Host

_TABLE = ("ip", "bench")


class ZoneCounters:
    """Counts from now on."""

    def __init__(self, site: Site) -> None:
        self._hosts: list[Host] = []
        zones = {agent.host.address: site.plan.zone(number) for number, agent in enumerate(site.agents)}
        zones[site.supernode.host.address] = site.plan.zone(0)
        for host in [site.supernode.host, *(agent.host for agent in site.agents)]:
            foreign = [address for address, zone in zones.items() if zone != zones[host.address]]
            host.run(["nft", "add", "table", *_TABLE])
            host.run(["nft", "add", "chain", *_TABLE, "input", "{ type filter hook input priority 0 ; }"])
            host.run(["nft", "add", "rule", *_TABLE, "input", "ip", "saddr", f"{{ {', '.join(foreign)} }}", "counter"])
            self._hosts.append(host)

    def crossed_bytes(self) -> int:
        return sum(self._counted(host) for host in self._hosts)

    def _counted(self, host: Host) -> int:
        for item in json.loads(host.run(["nft", "--json", "list", "table", *_TABLE]))["nftables"]:
            for expression in item.get("rule", {}).get("expr", []):
                if "counter" in expression:
                    return int(expression["counter"]["bytes"])
        raise LookupError(f"{host.name} has no counter")
