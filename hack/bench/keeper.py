"""A client that keeps what it pulls, as a container runtime does: curl, which writes each blob into a file.

Receiving and writing cost it the same through an agent and directly, so that the two can be compared. Files lie where the lab has
its own, in memory, and are gone when the pull has ended.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from hack.bench.puller import ACCEPT, SILENCE_SECONDS, Consume, Puller, PullError

_TOLD = "%{size_download} %{time_starttransfer}"


@dataclass
class Keeper(Puller):
    _curls: list[subprocess.Popen[str]] = field(default_factory=list)
    _files: list[Path] = field(default_factory=list)
    _is_aborted: bool = False

    def abort(self) -> None:
        self._is_aborted = True
        for curl in list(self._curls):
            curl.kill()

    def _run(self, began: float) -> None:
        super()._run(began)
        for file in self._files:
            file.unlink(missing_ok=True)

    def _get(self, path: str, consume: Consume | None) -> tuple[int, float]:
        file = self.host.lab.directory / f"{self.host.name}-kept-{id(self)}-{path.rpartition('/')[2]}"
        self._files.append(file)
        url = f"http://{self.door.address}:{self.door.port}{self.door.path}{path}"
        options = ["--silent", "--show-error", "--fail-with-body", "--speed-limit", 1, "--speed-time", SILENCE_SECONDS]
        headers = ["--header", f"Accept: {ACCEPT}"]
        if self.door.authorization:
            headers += ["--header", f"Authorization: {self.door.authorization}"]
        argv = self.host.command(["curl", *options, *headers, "--write-out", _TOLD, "--output", file, url])
        curl = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._curls.append(curl)
        if self._is_aborted:
            curl.kill()
        told, complaint = curl.communicate()
        if curl.returncode:
            raise PullError(f"{path}: curl ended with {curl.returncode}: {complaint.strip()}")
        if consume:
            consume(memoryview(file.read_bytes()))
        size, first_byte_seconds = told.split()
        return int(size), float(first_byte_seconds)
