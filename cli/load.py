"""`darner load` and `darner unload`: images of a file are put into the supernodes, so that a cluster needs no registry for them.

Each supernode is spoken with by a command in its pod (`supernode.loaded`): Kubernetes' own rights decide who may. Every supernode
gets all images, for each of them is asked for some of the names and blobs. The archive is checked before anything is sent.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Annotated

import msgspec
import typer
from rich.progress import Progress

from cli.errors import CommandError, ExitCode, NotThere, WrongUsage
from cli.layout.archive import archive_at
from cli.layout.images import ArchivedImage, ImageArchive, name_typed
from cli.output import console, print_json, print_line, size
from cli.pods import is_ready, name_of
from cli.session import Session
from cli.streams import Dialogue
from supernode.loaded.conversation import LoadAnswer, LoadedManifest, LoadImage, UnloadImage

COMMAND = ["darner", "loaded"]
CHUNK_BYTES = 1 << 16
ANSWER_SECONDS_MAX = 300.0
"""A supernode makes room, checks the last blob and writes it to the disk before it answers."""
AT_ONCE = 4
"""Supernodes that are spoken with at a time."""

Failures = dict[str, str]
"""Why, by pod."""


def load(
    session: Session,
    archive: Annotated[str, typer.Argument(metavar="FILE.tar|DIR|-", help="An OCI layout, or what `docker save` writes.")],
    name: Annotated[str, typer.Option("--name", metavar="IMAGE", help="What the archive's one image is to be called.")] = "",
) -> int:
    """Put the images of a file into the supernodes, for nodes that reach no registry."""
    with archive_at(archive) as found:
        images = named(found, name)
        for image in images:
            found.check(image)
        pods = _supernodes(session)
        with Progress(console=console(sys.stderr), transient=True, disable=not sys.stderr.isatty()) as progress:
            failures = _at_each(session, pods, lambda pod, dialogue: _load(dialogue, pod, found, images, progress))
    if session.json:
        loaded = [{"name": image.name, "digest": image.digest, "bytes": image.size} for image in images]
        print_json({"images": loaded, "supernodes": [pod for pod in pods if pod not in failures], "failures": failures})
    elif len(failures) < len(pods):
        for image in images:
            where = f"{len(pods) - len(failures)} of {len(pods)} supernodes"
            print_line(f"{image.name} {image.digest} {size(image.size)}, in {where}")
    return _ended(failures, "load it again: an image is named where all of it is, and nowhere else")


def unload(
    session: Session, names: Annotated[list[str], typer.Argument(metavar="IMAGE...", help="As `darner list images` shows it.")]
) -> int:
    """Take loaded images back: their names mean again what their registries say."""
    asked = [name_typed(name) for name in names]
    pods = _supernodes(session)
    found: set[str] = set()
    failures = _at_each(session, pods, lambda _, dialogue: found.update(_unload(dialogue, asked)))
    if session.json:
        print_json({"images": asked, "supernodes": [pod for pod in pods if pod not in failures], "failures": failures})
    for name in asked:
        if not failures and name not in found:
            raise NotThere(f"{name} is not loaded; `darner list images` shows what is")
        if not failures and not session.json:
            print_line(f"{name} is loaded no more")
    return _ended(failures, "`darner list images` shows what is loaded")


def named(archive: ImageArchive, name: str) -> list[ArchivedImage]:
    """The images with their names, each name once. Raises CommandError."""
    images = archive.images
    if name:
        if len({image.digest for image in images}) != 1:
            raise WrongUsage(f"--name: {archive.files.name} has {len(images)} images, and a name is for one")
        return [replace(images[0], name=name_typed(name))]
    by_name: dict[str, ArchivedImage] = {}
    for image in images:
        if not image.name:
            raise WrongUsage(f"{archive.files.name} does not say what {image.digest} is called; say it by --name")
        if by_name.setdefault(image.name, image).digest != image.digest:
            raise CommandError(f"{archive.files.name} has two images of the name {image.name}; save them apart")
    return list(by_name.values())


def _supernodes(session: Session) -> list[str]:
    """Their pods. Raises NotThere unless all of them are ready: one that is left out would not know the images."""
    pods = session.installation.pods("supernode")
    waiting = [name_of(pod) for pod in pods if not is_ready(pod)]
    if not pods or waiting:
        words = f"{', '.join(waiting)} is not ready" if waiting else "there is no supernode"
        raise NotThere(f"images are kept by all supernodes, and {words}; `darner status` says more")
    return sorted(map(name_of, pods))


def _at_each(session: Session, pods: list[str], do: Callable[[str, Dialogue], None]) -> Failures:
    """Speak with each supernode. Whoever is interrupted waits for none of them."""
    failures: Failures = {}
    dialogues: list[Dialogue] = []
    is_over = threading.Event()

    def done(pod: str) -> None:
        try:
            with session.access.dialogue(session.installation.namespace, pod, COMMAND) as dialogue:
                dialogues.append(dialogue)
                if not is_over.is_set():
                    do(pod, dialogue)
        except CommandError as error:
            failures[pod] = str(error)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            list(pool.map(done, pods))
        except BaseException:
            is_over.set()
            for dialogue in dialogues:
                dialogue.interrupt()
            raise
    return failures


def _ended(failures: Failures, what_to_do: str) -> ExitCode:
    if not failures:
        return ExitCode.FINE
    said = "; ".join(f"{pod}: {words}" for pod, words in sorted(failures.items()))
    raise CommandError(f"{said}; {what_to_do}")


def _load(dialogue: Dialogue, pod: str, archive: ImageArchive, images: Collection[ArchivedImage], progress: Progress) -> None:
    """Raises CommandError."""
    task = progress.add_task(pod, total=sum(image.size for image in images))
    for image in images:
        manifests = {digest: LoadedManifest(item.media_type, item.body) for digest, item in image.manifests.items()}
        said = _asked(dialogue, LoadImage(image.name, image.digest, manifests))
        missing = said.missing or []
        progress.advance(task, sum(size for digest, size in image.blobs.items() if digest not in missing))
        for digest in missing:
            if digest not in image.blobs or not _send_blob(dialogue, archive, digest, partial(progress.advance, task)):
                break
        _heard(dialogue)


def _unload(dialogue: Dialogue, names: Iterable[str]) -> list[str]:
    """Those that were loaded there. Raises CommandError."""
    return [name for name in names if not _asked(dialogue, UnloadImage(name)).missing]


def _asked(dialogue: Dialogue, what: LoadImage | UnloadImage) -> LoadAnswer:
    line = msgspec.json.encode(what) + b"\n"
    for start in range(0, len(line), CHUNK_BYTES):
        if not dialogue.send(line[start : start + CHUNK_BYTES]):
            break
    return _heard(dialogue)


def _send_blob(dialogue: Dialogue, archive: ImageArchive, digest: str, sent: Callable[[int], None]) -> bool:
    """Whether all of it went; if not, the supernode says why. `sent` is told of bytes as they go."""
    with archive.blob(digest) as file:
        while chunk := file.read(CHUNK_BYTES):
            if not dialogue.send(chunk):
                return False
            sent(len(chunk))
    return True


def _heard(dialogue: Dialogue) -> LoadAnswer:
    """Raises CommandError with what the supernode says against it."""
    line = dialogue.line(ANSWER_SECONDS_MAX)
    try:
        said = msgspec.json.decode(line, type=LoadAnswer)
    except msgspec.MsgspecError:
        raise CommandError("the supernode answers what nobody understands; is it another version of Darner?") from None
    if said.error:
        raise CommandError(said.error)
    return said
