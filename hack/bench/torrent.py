"""Beside Darner: a BitTorrent swarm of libtorrent, with its own settings but for what does not exist in a lab.

The seed stands in the origin's place, every node is told of all others, the file and its pieces are as large as the image's. All
sessions live in this process: a session's threads stay in the network namespace of the thread that made it, and they are C++.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import libtorrent

from agent.values.pieces import piece_length
from hack.bench.direct import Beside
from hack.bench.site import Site, bound_seconds
from hack.lab import Host, LabError

if TYPE_CHECKING:
    from libtorrent import settings_pack, torrent_handle

PORT = 6881
SECONDS_MAX = 300
_POLL_SECONDS = 0.02
_SETTINGS: settings_pack = {  # nothing outside of the lab is to be found, and nothing but the swarm is to be heard
    "enable_dht": False,
    "enable_lsd": False,
    "enable_natpmp": False,
    "enable_upnp": False,
    "alert_mask": 0,
}


def swarm(site: Site) -> Beside:
    """Raises LabError when a node does not get all of it in time."""
    folder = site.lab.directory / "torrent"
    size = site.plan.image_bytes
    hosts = [site.registry.host, *(agent.host for agent in site.agents)]
    try:
        torrent = _torrent(folder / "seed", size)
        sessions = [_session(host) for host in hosts]
        seed = _join(sessions[0], torrent, folder / "seed", [])
        _wait([seed])
        sent = hosts[0].sent_bytes()
        began = time.monotonic()
        handles = [
            _join(session, torrent, folder / host.name, [(other.address, PORT) for other in hosts if other is not host])
            for session, host in zip(sessions[1:], hosts[1:], strict=True)
        ]
        _wait(handles)
        seconds, sent = time.monotonic() - began, hosts[0].sent_bytes() - sent
        del handles, seed, sessions  # a session ends when nobody holds it
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Beside(seconds / bound_seconds(size, site.plan.nodes, site.plan.rate, site.plan.rate), sent / size)


def _torrent(folder: Path, size: int) -> bytes:
    """The metadata of a new file in that folder, as in a file that ends in .torrent."""
    folder.mkdir(parents=True)
    (folder / "blob").write_bytes(os.urandom(size))
    made = libtorrent.create_torrent(libtorrent.list_files(str(folder / "blob")), piece_length(size))
    libtorrent.set_piece_hashes(made, str(folder))
    torrent: bytes = libtorrent.bencode(made.generate())
    return torrent


def _session(host: Host) -> libtorrent.session:
    with host.inside():
        return libtorrent.session({**_SETTINGS, "listen_interfaces": f"{host.address}:{PORT}"})


def _join(session: libtorrent.session, torrent: bytes, folder: Path, peers: list[tuple[str, int]]) -> torrent_handle:
    parameters = libtorrent.load_torrent_buffer(torrent)
    parameters.save_path, parameters.peers = str(folder), peers
    parameters.flags &= ~(libtorrent.torrent_flags.paused | libtorrent.torrent_flags.auto_managed)
    handle: torrent_handle = session.add_torrent(parameters)
    return handle


def _wait(handles: list[torrent_handle]) -> None:
    """Until each has all of the file."""
    deadline = time.monotonic() + SECONDS_MAX
    waiting = list(handles)
    while waiting := [handle for handle in waiting if not handle.status().is_seeding]:
        if time.monotonic() > deadline:
            raise LabError(f"{len(waiting)} of {len(handles)} libtorrent nodes are not done after {SECONDS_MAX} s")
        time.sleep(_POLL_SECONDS)
