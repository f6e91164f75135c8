"""The causes for which a pull fails, and whose fault each is: told from the runtime's words, because a pod's status has no more.

Pure. The words are those of containerd 1.6 to 2.2 and of CRI-O, in the kubelet's message, with the agent's own answer at their
end. What follows from a cause is `webhook.revert.failures`'s and `webhook.revert.controller`'s to say.
"""

from __future__ import annotations

import re
from enum import StrEnum

WORDS_LENGTH_MAX = 600
"""Characters of a kubelet's message that are told to people."""
MATCHED_LENGTH_MAX = 2048
"""Characters of a kubelet's message by which its cause is found. The expressions take time by the square of them: 6 ms for so
many, and 4.7 s for the 56 kB of a registry that had much to say. Its beginning and its end, where the answer is, are kept."""


class Cause(StrEnum):
    """The cause for which a pull has failed, as the metric names it."""

    AGENT_UNREACHABLE = "agent-unreachable"
    NOT_FOUND = "not-found"
    DENIED = "denied"
    FORBIDDEN = "forbidden"
    NOT_ASKED = "not-asked"
    THROTTLED = "throttled"
    FAILED = "failed"
    UNTOLD = "untold"
    """The kubelet says no more than that it waits before it tries again, as until 1.30."""

    @property
    def registry_is_at_fault(self) -> bool:
        """Not when nobody listens on the node; not when the registry itself has answered, as it would have without us.

        The agent passes on what a registry answers, and says 502 or 504 when none did: so not-found and denied (404, 401) are the
        registry's own words about an image, which anybody could bring about by misspelling a name; and so is forbidden (403).
        421 is what the agent says of a registry that it may not ask, such as one with a private address, and never of an image.
        """
        return self in (Cause.FAILED, Cause.THROTTLED, Cause.NOT_ASKED)


_NAMES = re.compile(r'"[^"]*"|\[[^]]*\]|\S*127\.0\.0\.1:65001/\S*')
"""Names of images, which may hold any word or number, and addresses and tags with them."""
_STATUS = re.compile(r"\bstatus\b[^:]*[: ] *([45]\d\d)\b|: ([45]\d\d) [A-Z]")
"""The status that the agent has answered; HTTP/1.1 lets it do so without a phrase, and containerd repeats that."""
_STATUSES = {"401": Cause.DENIED, "403": Cause.FORBIDDEN, "404": Cause.NOT_FOUND, "421": Cause.NOT_ASKED, "429": Cause.THROTTLED}

# Of containerd 1.6 to 2.2 and CRI-O, without the names in them; the first that is found decides.
_CAUSES: tuple[tuple[Cause, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(expression, re.IGNORECASE))
    for cause, expression in (
        (Cause.UNTOLD, r"^(back-off pulling image|errimagepull|imagepullbackoff)?[\s:]*$"),
        # To the agent: that a registry cannot be reached is the agent's own word, in the body of its 502.
        (Cause.AGENT_UNREACHABLE, r"\b(dial|read|write) tcp \S*127\.0\.0\.1:65001: |\b(head|get) : EOF\b"),
        (Cause.THROTTLED, r"too ?many ?requests"),
        (Cause.DENIED, r"authorization failed|pull access denied|insufficient_scope|no basic auth credentials|\bunauthorized\b"),
        (Cause.NOT_FOUND, r"\bnot ?found\b|manifest unknown|name unknown"),
    )
)


def cause_of(words: str) -> Cause:
    """The cause, by a kubelet's message of any length."""
    text = _NAMES.sub("", shortened(words, MATCHED_LENGTH_MAX))
    status = _STATUS.search(text)
    if status:
        return _STATUSES.get(status[1] or status[2], Cause.FAILED)
    return next((cause for cause, expression in _CAUSES if expression.search(text)), Cause.FAILED)


def shortened(words: str, length: int = WORDS_LENGTH_MAX) -> str:
    """Cut in the middle: the answer of the one that refused is at the end, and before it the image is named again and again."""
    if len(words) <= length:
        return words
    head = length // 4
    return f"{words[:head]} ... {words[-(length - head - 5) :]}"
