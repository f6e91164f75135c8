"""The chart's tests render with the real Helm and validate with Kubernetes' own schema; hack/chart/tool.sh makes both.

Nothing is skipped where a tool is missing: it is made, and where it cannot be, the tests fail.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hack.chart.helm import ROOT, Helm, Object, Values, identity, tool
from hack.chart.strict import Schemas, manifests

TEST_SECONDS_MAX = 60

Render = Callable[..., list[Object]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The limit is for each test alone: what the first of them has to build has a limit of its own."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_SECONDS_MAX, func_only=True))


@pytest.fixture(scope="session")
def helm(tmp_path_factory: pytest.TempPathFactory) -> Helm:
    return Helm(tmp_path_factory.mktemp("helm"))


@pytest.fixture(scope="session")
def schemas() -> Schemas:
    return Schemas(tool("openapi"), tool("crds"), tool("monitors"), ROOT / "hack" / "chart" / "openshift.yaml")


@pytest.fixture(scope="session")
def render(helm: Helm, schemas: Schemas) -> Render:
    """Renders the chart to objects, of which every one is valid, strictly, and there only once."""

    def render(values: Values | None = None, **where: str) -> list[Object]:
        rendered = helm.template(values, **where)
        assert rendered.returncode == 0, rendered.stderr
        objects = manifests(rendered.stdout)
        assert [problem for item in objects for problem in schemas.problems(item)] == []
        names = [identity(item) for item in objects]
        assert len(names) == len(set(names))
        return objects

    return render


@pytest.fixture(scope="session")
def default(render: Render) -> list[Object]:
    return render()
