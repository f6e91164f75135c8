"""The webhook's errors, and whose fault each of them is. None of them keeps a pod from being admitted."""

from __future__ import annotations

from enum import StrEnum

from agent.values.errors import DarnerError, UsageError


class BadReview(DarnerError):  # noqa: N818 (the field's word; "Error" would say nothing more)
    """The caller's fault: a body that is no AdmissionReview, so that there is nobody to answer."""

    status = 400


class Busy(BadReview):
    """The caller's fault, or that of others: more is under way than there may be. The API server admits the pod as it is."""

    status = 429


class Unreachable(DarnerError):  # noqa: N818 (it says what the matter is)
    """The cluster's fault, or the network's: the next moment may bring another answer of the API server."""


class KeyStoreError(DarnerError):
    """A directory's fault: the keys in it cannot be read or written now."""


class CertificateError(UsageError):
    """The operator's fault: a certificate that was given to us and cannot be served."""


class Obstacle(StrEnum):
    """Why a pull secret could not be derived, as the metric names it."""

    LATE = "late"
    BUSY = "busy"
    UNREACHABLE = "unreachable"
    REFUSED = "refused"
    CONFLICT = "conflict"
    FOREIGN = "foreign"
    TOO_MANY = "too-many"
    TOO_LARGE = "too-large"


class NotDerived(DarnerError):  # noqa: N818 (the field's word; "Error" would say nothing more)
    """The cluster's fault, or its owner's wish: a pull secret that the agent's node would need cannot be made."""

    def __init__(self, obstacle: Obstacle, words: str) -> None:
        super().__init__(words)
        self.obstacle = obstacle
