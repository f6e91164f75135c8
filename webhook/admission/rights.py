"""Namespaces in which the webhook has no rights: it could neither derive pull secrets there nor put an image back. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from webhook.gates import Gate, LeftAlone, Reason, Rewrite
from webhook.pods import Pod


def only_in(namespaces: Collection[str]) -> Gate:
    """Of pods elsewhere all images stay, and the pod says why; without namespaces there are rights in all of them."""

    def gate(namespace: str, _pod: Pod, _rewrites: Sequence[Rewrite]) -> Iterable[LeftAlone]:
        if namespaces and namespace not in namespaces:
            words = f"Darner has no rights in namespace {namespace}, and could not help a pod there whose pull fails"
            yield LeftAlone("pod", Reason.NO_RIGHTS, words)

    return gate
