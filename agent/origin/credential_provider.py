"""The node's own credentials for an image, from the credential providers that the kubelet of this node has.

The module reads their configuration once, asks those that are for an image all at the same time, and keeps what they said in
memory alone. A provider that fails, or is slow, is as if it had none: it never makes a pull fail. Where credentials are tried is
known to `agent.registry.node_credentials`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from agent import metrics
from agent.origin import credential_plugin
from agent.origin.credential_config import Answers, Auths, Provider, ProviderError, in_order, parse_answer, parse_config
from agent.values.credential import Credential
from agent.values.errors import UsageError

log = logging.getLogger(__name__)

WAIT_SECONDS_MAX = 8.0
"""How long a pull waits for a program that was begun for it: what is left of its 25 s has to do for the registry. The program
may take longer; the next pull finds what it said."""
RUNS_MAX = 16
"""Programs that run at once."""
CONFIG_BYTES_MAX = 1 << 20

Ask = Callable[[Provider, str], bytes]
"""What a provider writes about an image. Raises ProviderError."""


@dataclass(frozen=True)
class _Run:
    auths: Future[Auths]
    until: float
    """When a pull waits for it no longer."""


class CredentialProviders:
    def __init__(self, providers: Sequence[Provider], ask: Ask, now: Callable[[], float] = time.monotonic) -> None:
        self._providers = {provider: Answers() for provider in providers}
        self._ask = ask
        self._now = now
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(RUNS_MAX)
        self._runs: dict[tuple[str, str], _Run] = {}

    @classmethod
    def of_node(cls, config: str, directory: str) -> CredentialProviders | None:
        """Those of a configuration, a file or a directory of files as for the kubelet; None without one.

        What cannot be used is logged once. Raises UsageError when one of the two is not named.
        """
        if bool(config) != bool(directory):
            raise UsageError("--credential-provider-config and --credential-provider-bin-dir go together, as at the kubelet")
        return cls(_configured(Path(config)), Programs(directory)) if config else None

    def serve(self, image: str) -> bool:
        """Whether any of them is to be asked about the image."""
        return any(provider.is_for(image) for provider in self._providers)

    def credentials(self, image: str) -> list[Credential]:
        """The node's credentials for the image, the most specific first; none when no provider has any in time."""
        runs = [(provider, self._run(provider, image)) for provider in self._providers if provider.is_for(image)]
        return in_order(image, [self._said(provider, image, run) for provider, run in runs])

    def _said(self, provider: Provider, image: str, run: _Run) -> Auths:
        try:
            return run.auths.result(max(0.0, run.until - time.monotonic()))
        except TimeoutError:
            log.warning("the pull of %s goes on without the credential provider %s, which is slow", image, provider.name)
        except ProviderError:
            pass  # said by the thread that ran it
        return {}

    def _run(self, provider: Provider, image: str) -> _Run:
        """What is known, what is being asked already, or a new run of the program: one for all who ask the same."""
        key = provider.name, image
        with self._lock:
            kept = self._providers[provider].find(image, self._now())
            if kept is None and key in self._runs:
                return self._runs[key]
            run = _Run(Future(), time.monotonic() + WAIT_SECONDS_MAX)
            if kept is not None:
                run.auths.set_result(kept)
                return run
            if not self._places.acquire(blocking=False):
                log.warning("the credential provider %s is not asked: %d programs run already", provider.name, RUNS_MAX)
                run.auths.set_result({})
                return run
            thread = threading.Thread(target=self._answer, args=(provider, image, run), name="credential provider", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread is left: the next pull may find one
                self._places.release()
                run.auths.set_result({})
                return run
            self._runs[key] = run
        return run

    def _answer(self, provider: Provider, image: str, run: _Run) -> None:
        outcome, said = "failed", None
        try:
            said = parse_answer(provider, self._ask(provider, image))
            outcome = "answered"
        except ProviderError as error:
            log.warning("the credential provider %s has nothing for %s: %s", provider.name, image, error)
        finally:
            self._places.release()
            metrics.CREDENTIAL_PROVIDER_RUNS.labels(outcome).inc()
            with self._lock:
                if said:
                    self._providers[provider].keep(image, said, self._now())
                del self._runs[provider.name, image]
            run.auths.set_result(said.auths if said else {})


class Programs:
    """The providers' programs, in the directory where the kubelet has them."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)

    def __call__(self, provider: Provider, image: str) -> bytes:
        command = [str(self._directory / provider.name), *provider.args]
        return credential_plugin.run(command, provider.environment, provider.question(image))


def _configured(path: Path) -> list[Provider]:
    """None of them when one part is wrong, as with the kubelet; but the agent serves on without."""
    try:
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.suffix in (".json", ".yaml", ".yml"))
        found: list[Provider] = []
        for file in files:
            with file.open("rb") as opened:
                text = opened.read(CONFIG_BYTES_MAX + 1)
            if len(text) > CONFIG_BYTES_MAX:
                raise ProviderError(f"it is longer than {CONFIG_BYTES_MAX} bytes")
            usable, refused = parse_config(text)
            found += usable
            for name in refused:
                log.error(
                    "the credential provider %s is not used: tokenAttributes asks for a token of the pod's service account, "
                    "which only the kubelet can get; its images are served where they need no credential",
                    name,
                )
        if len({provider.name for provider in found}) < len(found):
            raise ProviderError("two providers have one name")
    except (OSError, ProviderError) as error:
        log.error("--credential-provider-config %s: no credential provider is used: %s", path, error)
        return []
    return found
