"""Names of images, as agents have to say them to a supernode: in full, so that one image has one name in the whole cluster."""

from __future__ import annotations

from agent.values.reference import InvalidReference, Reference


def check_name(registry: str, repository: str, reference: str | None = None) -> None:
    """Raises InvalidReference unless this is an image's name in its full form, perhaps with a tag or a digest."""
    suffix = "" if reference is None else f"@{reference}" if ":" in reference else f":{reference}"
    found = Reference.parse(f"{registry}/{repository}{suffix}")
    if (found.registry, found.repository) != (registry, repository):
        raise InvalidReference(f"{found.registry}/{found.repository} was meant, and has to be said")
