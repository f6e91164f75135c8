"""What every command that asks a cluster has in common: the options that say which cluster, which release and how to print."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any

import typer

from agent.config import duration
from cli import release as releases
from cli.cluster import ClusterAccess
from cli.errors import ClosedPipe, WrongUsage
from cli.output import OutputFormat
from webhook.kube.api import ObjectName, object_name


class ClusterSession:
    """One command's cluster. Its options are the arguments, as a person types them."""

    def __init__(
        self,
        context: Annotated[str, typer.Option(metavar="NAME", help="Of the kubeconfig (default: its current one).")] = "",
        kubeconfig: Annotated[
            str,
            typer.Option(metavar="FILE", help="Whom to ask (default: $KUBECONFIG, ~/.kube/config, or the cluster of this pod)."),
        ] = "",
        output: Annotated[OutputFormat, typer.Option("--output", "-o", help="For people, or for programs.")] = OutputFormat.TABLE,
    ) -> None:
        self._context, self._kubeconfig = context, kubeconfig
        self.json = output is OutputFormat.JSON

    @cached_property
    def access(self) -> ClusterAccess:
        """Raises ClusterUnreachable where no cluster is named."""
        return ClusterAccess(self._kubeconfig, self._context)


class Session(ClusterSession):
    """The same for a command that is about the release in that cluster."""

    def __init__(
        self,
        namespace: Annotated[
            str, typer.Option("--namespace", "-n", metavar="NAMESPACE", help="Where Darner is (default: looked for everywhere).")
        ] = "",
        release: Annotated[str, typer.Option(metavar="NAME", help="Which release, where there are several.")] = "",
        **cluster: Any,
    ) -> None:
        super().__init__(**cluster)
        self.namespace, self.release = namespace, release

    @property
    def installation(self) -> releases.Installation:
        """The release as it is now. Raises NotThere and its like."""
        return releases.find(self.access, self.namespace, self.release)


def seconds(value: str, flag: str) -> float:
    """Of a duration that is typed. Raises WrongUsage."""
    try:
        return duration(value)
    except ValueError as error:
        raise WrongUsage(f"{flag}: {error}") from None


def object_typed(value: str, nothing: str, hint: str) -> ObjectName:
    """Of NAMESPACE/NAME that is typed. Raises WrongUsage, which says that the value names `nothing`, and how to write one."""
    try:
        found = object_name(value)
    except ValueError:
        found = None
    if found is None:
        raise WrongUsage(f"{value!r} names {nothing}; write NAMESPACE/NAME, {hint}")
    return found


def asks_the_cluster(command: Callable[..., int]) -> Callable[..., int]:
    """For a command whose first parameter is a session: typer gets its own parameters, and then those of the session.

    A parameter of its own that has the name of one of the session's stands in its place.
    """
    own = inspect.signature(command, eval_str=True)
    first, *rest = own.parameters.values()
    shared = [option for option in _options_of(first.annotation) if option.name not in own.parameters]

    def typed(**given: Any) -> int:
        session = first.annotation(**{option.name: given.pop(option.name) for option in shared})
        try:
            return command(session, **given)
        except BrokenPipeError:  # typer would end it with a status of its own
            raise ClosedPipe from None

    typed.__signature__ = own.replace(parameters=[*rest, *shared])  # type: ignore[attr-defined]
    typed.__name__, typed.__doc__ = command.__name__, command.__doc__
    return typed


def _options_of(session: type[ClusterSession]) -> list[inspect.Parameter]:
    """Those of every session come last."""
    options = list(inspect.signature(session, eval_str=True).parameters.values())
    if options[-1].kind is inspect.Parameter.VAR_KEYWORD:
        options[-1:] = _options_of(ClusterSession)
    return options
