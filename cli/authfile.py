"""Credentials for registries, from where other tools keep them: files that `docker login` and `podman login` write, pull secrets.

Helpers that such a file names (credsStore, credHelpers) are not run. Nothing of a credential is ever printed.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from agent.origin.credential_config import Auths
from cli.errors import WrongUsage
from supernode.registry_credentials import FILE_BYTES_MAX, parse
from webhook.kube.api import Object, mapping_at, text_at
from webhook.pullsecrets.dockerconfig import CONFIG_KEYS, DOCKER_CONFIG_JSON


def auths_of_file(path: str, environment: Mapping[str, str]) -> tuple[Auths, ...]:
    """Those of the file that was named; else of the one where tools look for it, if it is there. Raises WrongUsage."""
    if path:
        return (_read(Path(path)),)
    usual = Path(environment.get("DOCKER_CONFIG") or Path(environment.get("HOME") or "/") / ".docker") / "config.json"
    for found in (environment.get("REGISTRY_AUTH_FILE", ""), str(usual)):
        if found and Path(found).is_file():
            try:
                return (_read(Path(found)),)
            except WrongUsage:  # such as one that only names a helper: what is public needs none of it
                continue
    return ()


def _read(path: Path) -> Auths:
    try:
        with path.open("rb") as file:
            return parse(file.read(FILE_BYTES_MAX + 1))
    except OSError as error:
        raise WrongUsage(f"--authfile {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise WrongUsage(f"--authfile {path}: {error}") from None


def auths_of_secret(secret: Object) -> Auths:
    """Of a pull secret; none of another."""
    try:
        return parse(base64.b64decode(text_at(mapping_at(secret, "data"), CONFIG_KEYS[DOCKER_CONFIG_JSON]), validate=True))
    except (ValueError, binascii.Error):
        return {}
