"""What goes wrong between a person and a cluster: each error is one line that says what to do, and knows its exit code."""

from __future__ import annotations

from enum import IntEnum

from agent.values.errors import DarnerError


class ExitCode(IntEnum):
    """How a command ends; docs/cli.md has the same table."""

    FINE = 0
    PROBLEM = 1
    """A problem was found, or what was asked for could not be done."""
    USAGE = 2
    UNREACHABLE = 3
    """The cluster was not reached, or it lets nobody in with these credentials."""
    TIMED_OUT = 4
    INTERRUPTED = 130
    """By Ctrl-C, as shells count it."""
    CLOSED_PIPE = 141
    """Whoever read the output has left, as shells count it."""


class CommandError(DarnerError):
    """What was asked for could not be done."""

    exit_code: int = ExitCode.PROBLEM


class WrongUsage(CommandError):  # noqa: N818 (it says what the matter is, as the others here do)
    """A flag or an argument that cannot be used."""

    exit_code = ExitCode.USAGE


class ClusterUnreachable(CommandError):  # noqa: N818
    """No kubeconfig, nobody who answers there, or nobody who lets us in."""

    exit_code = ExitCode.UNREACHABLE


class NotAllowed(CommandError):  # noqa: N818
    """Kubernetes' RBAC does not allow it."""


class NotThere(CommandError):  # noqa: N818
    """The object is not in the cluster, or not any more."""


class TimedOut(CommandError):  # noqa: N818
    """It took longer than it may."""

    exit_code = ExitCode.TIMED_OUT


class ClosedPipe(CommandError):  # noqa: N818
    """Nobody reads what is printed any more, which is told to nobody."""

    exit_code = ExitCode.CLOSED_PIPE
