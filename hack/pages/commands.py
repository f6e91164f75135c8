"""The reference of commands, from the program itself: what each does, how it is typed, and its options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from cli.app import app
from cli.session import Session, asks_the_cluster


def command_reference() -> str:
    root = typer.main.get_command(app)
    common = _options(typer.main.get_command(_alone()))
    lines = ["Options of every command that asks the cluster:", "", *_table(common), ""]
    for words, command in _commands(root, ("darner",)):
        lines += _section(words, command, {(tuple(option.opts), option.help) for option in common})
    return "\n".join(lines)


def _alone() -> typer.Typer:
    """A program with one command, which has no options of its own."""

    def nothing(session: Session) -> int:
        return int(session.json)

    alone = typer.Typer(add_completion=False)
    alone.command()(asks_the_cluster(nothing))
    return alone


def _commands(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in sorted(group.commands.items()):
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))
        else:
            yield (*words, name), command


def _section(words: tuple[str, ...], command: Any, common: set[tuple[tuple[str, ...], str]]) -> list[str]:
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    named = [_argument(parameter) for parameter in arguments]
    options = [option for option in _options(command) if (tuple(option.opts), option.help) not in common]
    usage = " ".join((*words, *named, "[OPTIONS]"))
    about = "\n\n".join(" ".join(part.split()) for part in (command.help or "").split("\n\n"))
    lines = [f"### {' '.join(words)}", "", f"    {usage}", "", about, ""]
    return [*lines, *_table(options), ""] if options else lines


def _argument(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name.upper())
    return name if parameter.required else f"[{name}]"


def _options(command: Any) -> list[Any]:
    return [item for item in command.params if item.param_type_name == "option" and item.name != "help"]


def _table(options: list[Any]) -> list[str]:
    rows = [f"| {_written(option)} | {_cell(option.help or '')} |" for option in options]
    return ["| option | meaning |", "|---|---|", *rows]


def _written(option: Any) -> str:
    """`--for TIME`, and every other way to write it."""
    value = "" if option.is_flag else f" {_cell(option.metavar or _choices(option))}"
    ways = [*option.opts, *option.secondary_opts]
    return ", ".join(f"`{way}{value}`" for way in ways)


def _choices(option: Any) -> str:
    return {"output": "table|json", "port": "PORT"}.get(option.name, option.name.upper())


def _cell(words: str) -> str:
    """In a table, where a bar would end it."""
    return words.replace("|", "\\|")
