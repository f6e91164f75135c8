"""Which Darner this is: the version of the installed package, for people and for the metric that tells releases apart."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import Gauge, disable_created_metrics

VERSION = version("darner")

BUILD_INFO = Gauge("darner_build_info", "Always 1; which version runs here, and as which component", ["component", "version"])

# Each counter and histogram would have a second series that tells when it began. process_start_time_seconds tells that for all.
disable_created_metrics()  # type: ignore[no-untyped-call]


def announce(component: str) -> None:
    """Say in the metrics that this process is an agent, a supernode or a webhook of this version."""
    BUILD_INFO.labels(component, VERSION).set(1)
