"""Settings of a Darner process: one frozen dataclass per process, one line per setting.

Every setting is a flag (`--piece-listen`), an environment variable (`DARNER_PIECE_LISTEN`) and, where it makes sense, a chart
value. A flag wins over the environment, the environment over the default; an empty value is a value, where the setting may be
empty. The supernode and the webhook declare their settings with the same functions. Nothing here reads a file or opens a socket.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, field, fields
from ipaddress import ip_address, ip_network
from typing import Any, NoReturn, TypeVar

from agent.values.address import Address, Network
from agent.values.errors import UsageError
from agent.values.space import Percent

Settings = TypeVar("Settings")

_SIZE_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}
_DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def text(value: str) -> str:
    return value


def pair(value: str) -> str:
    """`REGISTRY=HOST`."""
    if not re.fullmatch(r"[^\s=,/]+=[^\s=,/:]+", value):
        raise ValueError(f"{value!r} is no pair; write REGISTRY=HOST")
    return value


def yes_or_no(value: str) -> bool:
    if value not in ("true", "false"):
        raise ValueError(f"{value!r} is neither true nor false")
    return value == "true"


def size(value: str) -> int:
    """Bytes: `512Mi`, `50Gi`, `1048576`."""
    match = re.fullmatch(r"([0-9]{1,15})(Ki|Mi|Gi|Ti|)", value)
    if not match:
        raise ValueError(f"{value!r} is not a size; write bytes or a number with Ki, Mi, Gi or Ti, such as 50Gi")
    return int(match[1]) * _SIZE_UNITS[match[2]]


def space(value: str) -> int | Percent:
    """Disk: bytes, as `size` reads them, or a percentage of the filesystem: `20%`."""
    if match := re.fullmatch(r"([0-9]{1,2}|100)%", value):
        return Percent(int(match[1]))
    try:
        return size(value)
    except ValueError as error:
        raise ValueError(f"{error}, or a percentage of the disk, such as 20%") from None


def rate(least: str) -> Callable[[str], int]:
    """Bytes a second, no less than `least`: `100Mi`; nothing, or 0, for no limit."""

    def parse_rate(value: str) -> int:
        parsed = size(value) if value else 0
        if 0 < parsed < size(least):
            raise ValueError(f"{value!r} is less than {least}, below which pieces do not arrive in time; 0 is no limit")
        return parsed

    return parse_rate


def duration(value: str) -> float:
    """Seconds: `30s`, `5m`, `24h`, `250ms`."""
    match = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)(ms|s|m|h|d)", value)
    if not match:
        raise ValueError(f"{value!r} is not a duration; write a number with ms, s, m, h or d, such as 30s")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def address(value: str) -> Address:
    """`HOST:PORT`, with brackets around an IPv6 address: `[::1]:65001`."""
    match = re.fullmatch(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})", value)
    if not match or int(match[3]) > 65535:
        raise ValueError(f"{value!r} is not an address; write HOST:PORT, such as 10.0.0.7:65002")
    return Address(match[1] or match[2], int(match[3]))


def network(value: str) -> Network:
    """`10.96.0.0/12`, or one address."""
    try:
        return ip_network(value)
    except ValueError:
        raise ValueError(f"{value!r} is no network; write its first address and a length, such as 10.96.0.0/12") from None


def reachable(value: str) -> Address:
    """An address that others connect to: `0.0.0.0`, `[::]` and port 0 mean something to whoever listens, and to nobody else."""
    parsed = address(value)
    if parsed.port == 0 or is_wildcard(parsed):
        raise ValueError(f"{value!r} is no address to connect to; write HOST:PORT, such as 10.0.0.7:65002")
    return parsed


def is_loopback(where: Address) -> bool:
    """Whether only this machine can reach it. A name is not looked up."""
    try:
        return ip_address(where.host).is_loopback
    except ValueError:
        return where.host == "localhost"


def is_wildcard(where: Address) -> bool:
    """Whether the host stands for every address of this machine: `0.0.0.0`, `::` and the other ways to write them."""
    return re.fullmatch(r"(?:::ffff:)?[0.:]+", where.host, re.IGNORECASE) is not None


def or_none(parse: Callable[[str], Any]) -> Callable[[str], Any]:
    """What `parse` reads, or None when nothing is written."""
    return lambda value: parse(value) if value else None


def whole(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value):
        raise ValueError(f"{value!r} is not a whole number")
    return int(value)


def mode(value: str) -> int:
    """Permissions of a file, as chmod takes them: `0660`."""
    if not re.fullmatch(r"0?[0-7]{3}", value):
        raise ValueError(f"{value!r} is no mode of a file; write it as 0660")
    return int(value, 8)


def listed(parse: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    """A comma-separated list of what `parse` reads; empty items are dropped."""

    def parse_list(value: str) -> tuple[Any, ...]:
        return tuple(parse(item.strip()) for item in value.split(",") if item.strip())

    return parse_list


def one_of(*choices: str) -> Callable[[str], str]:
    def parse_choice(value: str) -> str:
        if value not in choices:
            raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
        return value

    return parse_choice


def between(parse: Callable[[str], Any], least: str, most: str) -> Callable[[str], Any]:
    """What `parse` reads, if it is within limits that are written as an operator would."""

    def parse_within(value: str) -> Any:
        parsed = parse(value)
        if not parse(least) <= parsed <= parse(most):
            raise ValueError(f"{value!r} is outside {least} to {most}")
        return parsed

    return parse_within


def setting(parse: Callable[[str], Any], help: str, default: str | None = None) -> Any:  # noqa: A002 (argparse's own word)
    """One setting: how its text is read, what it means, and its default as an operator would write it (None: required)."""
    metadata = {"parse": parse, "help": help, "default": default}
    return field(metadata=metadata) if default is None else field(default=parse(default), metadata=metadata)


class Parser(argparse.ArgumentParser):
    """argparse that raises instead of ending the process with a page of usage."""

    def error(self, message: str) -> NoReturn:
        said = "".join(character if character.isprintable() else " " for character in message)
        raise UsageError(f"{self.prog}: {said}; see {self.prog} --help")


def load(cls: type[Settings], program: str, argv: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """The settings object of one process. Raises UsageError with one line that names the setting and what it should be."""
    given = _given(cls, program, argv)
    values: dict[str, Any] = {}
    for item in fields(cls):  # type: ignore[arg-type]
        from_environment = given[item.name] is None
        raw = environment.get(variable(item.name)) if from_environment else given[item.name]
        if item.default is MISSING and not raw:
            raise UsageError(f"{program}: {flag(item.name)} (or {variable(item.name)}) is missing: {item.metadata['help']}")
        if raw is not None:
            try:
                values[item.name] = item.metadata["parse"](raw)
            except ValueError as error:
                name = f"{flag(item.name)} ({variable(item.name)})" if from_environment else flag(item.name)
                raise UsageError(f"{program}: {name}: {error}") from None
    try:
        return cls(**values)
    except UsageError as error:  # settings that do not fit together
        raise UsageError(f"{program}: {error}") from None


def _given(cls: type[Settings], program: str, argv: Sequence[str]) -> dict[str, str | None]:
    """The values of flags, by the name of their setting. Shows the help and ends the process when that is asked for."""
    parser = Parser(prog=program, allow_abbrev=False, description=(cls.__doc__ or "").strip())
    for item in fields(cls):  # type: ignore[arg-type]
        default = item.metadata["default"]
        shown = "required" if default is None else f"default: {default or 'none'}"
        help_text = f"{item.metadata['help']} ({variable(item.name)}; {shown})".replace("%", "%%")
        parser.add_argument(flag(item.name), metavar="VALUE", help=help_text)
    return vars(parser.parse_args(list(argv)))


def check_piece_address(piece_address: Address | None, piece_listen: Address) -> None:
    """Raises UsageError when nobody could know where this node's pieces are."""
    if piece_address is None and is_wildcard(piece_listen):
        raise UsageError(
            f"--piece-address (or DARNER_PIECE_ADDRESS) is missing: --piece-listen is {piece_listen}, which is every address "
            "of this node; write the one that others connect to, such as 10.0.0.7:65002"
        )


def check_swarm_key(swarm_key_file: str, insecure_swarm: bool, *listen: Address) -> None:
    """Raises UsageError where others could reach this process and nothing would tell who belongs to the swarm."""
    open_ones = [str(where) for where in listen if not is_loopback(where)]
    if open_ones and not swarm_key_file and not insecure_swarm:
        raise UsageError(
            f"--swarm-key-file (or DARNER_SWARM_KEY_FILE) is missing: {open_ones[0]} is open to everybody; "
            "name a file with 32 random bytes, or say --insecure-swarm true"
        )


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def variable(name: str) -> str:
    return "DARNER_" + name.upper()
