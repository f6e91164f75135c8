"""caBundle, which the webhook writes into its configuration at run time, is there after `helm upgrade` as it was before.

The upgrade itself is the code of the Helm that the chart is rendered with; see hack/chart/go/helm/upgrade.
"""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable

import pytest

from hack.chart.helm import Object, Values, one, tool

Render = Callable[..., list[Object]]
Upgrade = Callable[[Object, Object, Object], Object]

AUTHORITY = "QSBjZXJ0aWZpY2F0ZSBhdXRob3JpdHk="


@pytest.fixture(scope="session")
def upgrade() -> Upgrade:
    program = tool("upgrade")

    def upgrade(old: Object, new: Object, live: Object) -> Object:
        question = json.dumps({"old": old, "new": new, "live": live})
        answer = subprocess.run([str(program)], input=question, capture_output=True, text=True, timeout=60, check=True)
        result: Object = json.loads(answer.stdout)
        return result

    return upgrade


def configuration(render: Render, values: Values | None = None) -> Object:
    return one(render(values), "MutatingWebhookConfiguration", "webhook")


def patched(manifest: Object, authority: str = AUTHORITY) -> Object:
    """As the API server holds it once the webhook is up."""
    live = copy.deepcopy(manifest)
    live["webhooks"][0]["clientConfig"]["caBundle"] = authority
    live["metadata"]["resourceVersion"] = "7"
    return live


CHANGES: list[Values] = [
    {},
    {"webhook": {"namespaces": {"mode": "opt-out", "exclude": ["monitoring"]}}},
    {"webhook": {"label": "example.com/darner"}},
    {"commonLabels": {"team": "platform"}},
]


@pytest.mark.parametrize("values", CHANGES, ids=str)
def test_an_upgrade_changes_what_the_values_change_and_keeps_the_authority(
    render: Render, upgrade: Upgrade, values: Values
) -> None:
    old, new = configuration(render), configuration(render, values)
    assert upgrade(old, new, patched(old)) == patched(new)


@pytest.mark.parametrize("values", CHANGES, ids=str)
def test_so_does_the_rollback_of_it(render: Render, upgrade: Upgrade, values: Values) -> None:
    old, new = configuration(render), configuration(render, values)
    assert upgrade(new, old, patched(new)) == patched(old)


def test_an_empty_authority_in_the_chart_would_wipe_it_out(render: Render, upgrade: Upgrade) -> None:
    """Why the template does not mention it at all, and that these tests would notice if it did."""
    empty = patched(configuration(render), "")
    assert upgrade(empty, empty, patched(configuration(render))) == patched(configuration(render), "")


def test_another_name_of_the_webhook_would_lose_it(render: Render, upgrade: Upgrade) -> None:
    """Why the webhook's name is not a value: the API server merges the entries by it."""
    old = configuration(render)
    new = copy.deepcopy(old)
    new["webhooks"][0]["name"] = "other.darner.dev"
    (after,) = upgrade(old, new, patched(old))["webhooks"]
    assert "caBundle" not in after["clientConfig"]


def test_an_authority_in_the_values_is_written_as_it_is_given(render: Render) -> None:
    values = {"webhook": {"certificate": {"existingSecret": "certificate", "caBundle": "A certificate authority"}}}
    assert configuration(render, values)["webhooks"][0]["clientConfig"]["caBundle"] == AUTHORITY
