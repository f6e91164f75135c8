"""Supernodes become more and fewer under a node that pulls: it connects to the new ones, and no answer of DNS costs it a pull."""

from __future__ import annotations

from pathlib import Path

from agent.swarm.discovery import Discovery, DiscoveryError
from agent.values.address import Address
from tests.swarm import PIECE, Lab, noise, wait_until

NAME = "_channel._tcp.supernode.darner.svc.cluster.local"


def test_a_node_takes_part_at_the_supernodes_that_there_are_whatever_is_said_of_them(tmp_path: Path) -> None:
    with Lab(tmp_path, supernodes=2) as lab:
        first, second = lab.channels
        del lab.channels[1]
        node = lab.node()
        assert [channel.where for channel in node.swarm.channels] == [first]

        def connected() -> set[Address]:
            return {channel.where for channel in node.swarm.channels if channel.up}

        def pull(seed: int) -> None:
            body = noise(3 * PIECE + seed, seed)
            assert node.pull(lab.push(body, tag=str(seed)).layers[0]) == body

        pull(1)
        node.swarm.use((first, second))
        wait_until(lambda: connected() == {first, second})
        pull(2)
        for seed, found in enumerate(
            [(), (Address("nobody.invalid", 1),), tuple(Address("127.0.0.1", 1 + n) for n in range(99))], 3
        ):
            node.swarm.use(found)
            assert connected() == {first, second}
            pull(seed)
        lab.stop_supernode(0)
        wait_until(lambda: connected() == {second})
        pull(9)
        lab.channels.append(second)


def test_a_loss_has_dns_asked_again_and_a_file_names_supernodes_where_it_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "supernodes"
    with Lab(tmp_path, supernodes=2) as lab:
        first, second = lab.channels
        lab.channels.clear()
        node = lab.node()
        file.write_text(str(first))

        def look_up(name: str) -> list[Address]:
            raise DiscoveryError(f"DNS knows no {name}")

        discovery = Discovery(NAME, str(file), node.swarm.use, look_up)
        node.swarm.on_lost = discovery.look_soon
        discovery.start()
        try:
            wait_until(lambda: any(channel.up for channel in node.swarm.channels))
            file.write_text(f"{first},{second}")
            lab.stop_supernode(0)
            wait_until(lambda: any(channel.up and channel.where == second for channel in node.swarm.channels))
        finally:
            discovery.stop()
            discovery._thread.join(60)
        lab.channels += [first, second]
