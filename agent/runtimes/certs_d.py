"""containerd's directory of registries, certs.d: HOST/hosts.toml names the servers that are asked for a registry's images.

containerd reads it at each pull (github.com/containerd/containerd, docs/hosts.md), so nothing is restarted. Where `server` is not
given, the last server is the one that it would ask without the file. A directory that is there already is an administrator's,
also one without a hosts.toml: it may hold certificates of that registry, which containerd takes only as long as there is none.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from agent.runtimes.ours import MARK, is_ours, put, replace, says
from agent.values.address import Address

ALL = "_default"
"""containerd's name for every registry that has no directory of its own."""
_FILE = "hosts.toml"
_ASIDE = ".darner-"
"""How the name of a directory begins that is being made. No registry's begins like that."""


class CertsD:
    """`write` and `remove` raise OSError where the directory cannot be written to."""

    def __init__(self, root: Path, plain: Collection[str]) -> None:
        """`plain` are the registries that are asked in plain HTTP, without the agent as well."""
        self._root = root
        self._plain = plain

    def write(self, registries: Iterable[str], agent: Address) -> list[str]:
        """Have the runtime ask the agent first, for these registries alone. Returned are those that are others' to write."""
        self._clear_aside()
        texts = {registry: _asking(agent, f"http://{registry}" if registry in self._plain else "") for registry in registries}
        if ALL in texts:
            texts[str(agent)] = _asking_directly(agent)  # of rewritten names, which would be asked for as those of a registry
        if self._is_anothers(ALL):  # it stands for these registries too, and says where they are asked
            texts, foreign = {}, list(texts)
        else:
            foreign = [registry for registry in texts if self._is_anothers(registry)]
        for registry in self._written() - texts.keys():
            self._remove(registry)
        for registry, text in texts.items():
            if registry not in foreign:
                self._put(registry, text)
        return foreign

    def remove(self) -> None:
        """Everything that was written here by an agent, and nothing else."""
        self._clear_aside()
        for registry in self._written():
            self._remove(registry)

    def _written(self) -> set[str]:
        return {file.parent.name for file in self._root.glob(f"*/{_FILE}") if is_ours(file)}

    def _clear_aside(self) -> None:
        """What an agent had not finished when it was killed."""
        for directory in self._root.glob(f"{_ASIDE}*"):
            shutil.rmtree(directory)

    def _is_anothers(self, registry: str) -> bool:
        host, colon, port = registry.rpartition(":")
        names = [registry, *([f"{host}_{port}_"] if colon else [])]  # containerd knows both
        return any(os.path.lexists(self._root / name) and not is_ours(self._root / name / _FILE) for name in names)

    def _put(self, registry: str, text: str) -> None:
        file = self._root / registry / _FILE
        if is_ours(file):
            if not says(file, text):
                replace(file, text, _aside_of(file))
            return
        aside = self._root / (_ASIDE + registry)
        aside.mkdir()
        put(aside / _FILE, text)
        aside.rename(file.parent)

    def _remove(self, registry: str) -> None:
        file = self._root / registry / _FILE
        _aside_of(file).unlink(missing_ok=True)
        file.unlink()
        with contextlib.suppress(OSError):  # somebody has put another file beside it
            file.parent.rmdir()


def _aside_of(file: Path) -> Path:
    return file.with_name(_ASIDE + _FILE)


def _asking(agent: Address, server: str) -> str:
    of_its_own = f'server = "{server}"\n' if server else ""
    return f'{MARK}{of_its_own}[host."http://{agent}"]\ncapabilities = ["pull", "resolve"]\n'


def _asking_directly(agent: Address) -> str:
    return f'{MARK}server = "http://{agent}"\n'
