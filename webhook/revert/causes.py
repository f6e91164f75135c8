"""The causes for which a pull fails, and whose fault each is: told from the runtime's words, because a pod's status has no more.

Pure. The words are those of containerd 1.6 to 2.2 and of CRI-O, in the kubelet's message, with the agent's own answer at their
end. A registry is blamed only where an agent has said so itself, by the reason phrase of its answer; a node's own troubles, and
words that nobody knows, count against none. What follows from a cause is `webhook.revert.failures`'s and
`webhook.revert.controller`'s to say.
"""

from __future__ import annotations

import re
from enum import StrEnum

from agent.values.errors import REGISTRY_AT_FAULT

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
    """The agent's 5xx, with the word that the registry is at fault."""
    NODE = "node"
    """The node's own trouble: its disk, its runtime, its policy."""
    HELD_BACK = "held-back"
    """The kubelet has not tried yet, because it begins so many pulls a second (`registryPullQPS`); it will by itself."""
    UNCLEAR = "unclear"
    """Anything else: nobody has said whose fault it is."""
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

    @property
    def registry_is_in_doubt(self) -> bool:
        """Whether the registry is no longer known to work, which is less than being at fault: an image that nobody could put back
        is then not rewritten."""
        return self.registry_is_at_fault or self is Cause.UNCLEAR

    @property
    def refused(self) -> bool:
        """Whether the registry wants a credential, or another one than it was sent."""
        return self in (Cause.DENIED, Cause.FORBIDDEN)


_NAMES = re.compile(r'"[^"]*"|\[[^]]*\]|\S*127\.0\.0\.1:65001/\S*')
"""Names of images, which may hold any word or number, and addresses and tags with them."""
_STATUS = re.compile(rf"(?:\bstatus\b[^:]*[: ] *([45]\d\d)\b|: ([45]\d\d)(?= [A-Z]))( {REGISTRY_AT_FAULT}\b)?")
"""The status that the agent has answered, and the phrase by which it blames the registry. Runtimes repeat both as they are."""
_STATUSES = {"401": Cause.DENIED, "403": Cause.FORBIDDEN, "404": Cause.NOT_FOUND, "421": Cause.NOT_ASKED, "429": Cause.THROTTLED}

# Of containerd 1.6 to 2.2 and CRI-O, without the names in them; the first that is found decides.
_CAUSES: tuple[tuple[Cause, re.Pattern[str]], ...] = tuple(
    (cause, re.compile(expression, re.IGNORECASE))
    for cause, expression in (
        (Cause.HELD_BACK, r"\bpull QPS exceeded\b"),
        (Cause.UNTOLD, r"^(back-off pulling image|errimagepull|imagepullbackoff)?[\s:]*$"),
        # To the agent: that a registry cannot be reached is the agent's own word, in the body of its 502.
        (Cause.AGENT_UNREACHABLE, r"\b(dial|read|write) tcp \S*127\.0\.0\.1:65001: |\b(head|get) : EOF\b"),
        (Cause.THROTTLED, r"too ?many ?requests"),
        (Cause.DENIED, r"authorization failed|pull access denied|insufficient_scope|no basic auth credentials|\bunauthorized\b"),
        # Of the disk, of a runtime that is restarted or told to stop, and of the policies of containers/image.
        (Cause.NODE, r"no space left|quota exceeded|read-only file system|input/output error"),
        (Cause.NODE, r"code = Unavailable|transport is closing|containerd\.sock|context canceled|server is not initialized yet"),
        (Cause.NODE, r"signature|source image rejected"),
        # Of CRI-O, where nobody has told it that the agent is asked in plain HTTP.
        (Cause.NODE, r"server gave HTTP response to HTTPS client"),
        (Cause.NOT_FOUND, r"\bnot ?found\b|manifest unknown|name unknown"),
    )
)


def cause_of(words: str) -> Cause:
    """The cause, by a kubelet's message of any length."""
    text = _NAMES.sub("", shortened(words, MATCHED_LENGTH_MAX))
    status = _STATUS.search(text)
    if status:
        return _STATUSES.get(status[1] or status[2], Cause.FAILED if status[3] else Cause.UNCLEAR)
    return next((cause for cause, expression in _CAUSES if expression.search(text)), Cause.UNCLEAR)


def shortened(words: str, length: int = WORDS_LENGTH_MAX) -> str:
    """Cut in the middle: the answer of the one that refused is at the end, and before it the image is named again and again."""
    if len(words) <= length:
        return words
    head = length // 4
    return f"{words[:head]} ... {words[-(length - head - 5) :]}"
