"""The drop-in of CRI-O and podman, registries.conf.d/00-darner.conf (containers-registries.conf(5), version 2).

It says that the agent is asked in plain HTTP, without which they pull no rewritten name, and names it as the mirror of
registries. The tables of all files are put together, and of two for one registry the later file's counts. So ours is called like
the first, and what others say of a registry, in registries.conf as well, leaves it out of ours: theirs may block it.

podman reads it at each pull; CRI-O when it starts and when it is told to reload (docs/mirror-mode.md).
"""

from __future__ import annotations

import fnmatch
import os
import tomllib
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from agent.runtimes.certs_d import ALL
from agent.runtimes.ours import MARK, is_ours, replace, says
from agent.values.address import Address
from agent.values.reference import component_of


class RegistriesConf:
    """`write` and `remove` raise OSError where the directory cannot be written to, or what others say there cannot be read."""

    def __init__(self, root: Path, plain: Collection[str]) -> None:
        """`root` is the directory of registries.conf. `plain` are the registries that are asked in plain HTTP in any case."""
        self._root = root
        self._plain = plain
        self._file = root / "registries.conf.d" / "00-darner.conf"
        self._part = self._file.with_suffix(".part")

    def write(self, registries: Iterable[str], agent: Address) -> list[str]:
        """Have the runtime ask the agent, first for these registries. Returned are those that are not ours to write.

        `_default` means nothing here: there is no table for all registries.
        """
        if os.path.lexists(self._file) and not is_ours(self._file):
            return [str(self._file)]
        named = [registry for registry in registries if registry != ALL]
        taken = set(self._prefixes())
        foreign = [registry for registry in (str(agent), *named) if any(fnmatch.fnmatchcase(registry, one) for one in taken)]
        tables = [] if str(agent) in foreign else [f'[[registry]]\nlocation = "{agent}"\ninsecure = true\n']
        tables += [self._mirrored(registry, agent) for registry in named if registry not in foreign]
        text = "\n".join((MARK, *tables))
        if not is_ours(self._file) or not says(self._file, text):
            replace(self._file, text, self._part)
        return foreign

    def remove(self) -> None:
        self._part.unlink(missing_ok=True)
        if is_ours(self._file):
            self._file.unlink()

    def _mirrored(self, registry: str, agent: Address) -> str:
        plain = "insecure = true\n" if registry in self._plain else ""
        own = f'[[registry]]\nlocation = "{registry}"\n{plain}'
        return f'{own}[[registry.mirror]]\nlocation = "{agent}/{component_of(registry)}"\ninsecure = true\n'

    def _prefixes(self) -> Iterator[str]:
        """What others have tables for: names of registries, of repositories, or `*.DOMAIN`."""
        for file in (self._root / "registries.conf", *sorted(self._file.parent.glob("*.conf"))):
            if file == self._file:
                continue
            for table in _tables(file):
                prefix = table.get("prefix") or table.get("location")
                if isinstance(prefix, str):
                    yield prefix


def _tables(file: Path) -> list[dict[str, object]]:
    """None of a file that cannot be understood: the runtime does not go by it either. Raises OSError for one that this process
    alone cannot read, such as a link that leads out of the directory."""
    if not os.path.lexists(file):
        return []
    try:
        tables = tomllib.loads(file.read_text()).get("registry", [])
    except ValueError:
        return []
    return [table for table in tables if isinstance(table, dict)] if isinstance(tables, list) else []
