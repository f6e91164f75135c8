"""The way of a blob through the agent's files, which a newcomer has to read to follow it."""

from __future__ import annotations

from hack.way import files_of_cold_gets

FILES_MAX = 20
TRIES = 3
"""Where a machine is so busy that the swarm seems to be no help, the origin's files are on the way too: not so three times."""


def test_a_cold_blob_passes_through_no_more_files_than_a_person_can_read() -> None:
    files: list[str] = []
    for files in files_of_cold_gets(TRIES):
        if len(files) <= FILES_MAX:
            break
    assert "agent/registry/endpoint.py" in files
    assert "agent/swarm/piece_client.py" in files, "it came from another node"
    assert len(files) <= FILES_MAX, files
