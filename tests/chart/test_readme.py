"""The chart's README says what values.yaml says, about every value."""

from __future__ import annotations

from hack.chart.helm import CHART
from hack.chart.readme import page, values

TEXT = (CHART / "values.yaml").read_text()


def test_the_page_is_what_the_script_prints() -> None:
    assert (CHART / "README.md").read_text() == page(TEXT), "run: python -m hack.chart.readme > charts/darner/README.md"


def test_every_value_has_a_meaning_of_its_own_or_that_of_the_row_above() -> None:
    rows = {value.path: value.meaning for value in values(TEXT) if value.default or value.depth > 1}
    groups = {value.path for value in values(TEXT) if not value.default}
    assert [path for path in rows.keys() - groups if not rows[path] and not rows.get(path.rpartition(".")[0])] == []


def test_groups_at_the_top_are_sections_and_a_comment_of_several_lines_is_one_cell() -> None:
    top, group = "# Of all.\na: 1\n# A part.\npart:\n", "  # One,\n  # two | three.\n  b:\n    # Is c.\n    c: [x]\n"
    said = page(top + group + "  tolerations: []\n")
    assert "| `a` | `1` | Of all. |\n\n## part\n\nA part.\n\n| value |" in said
    assert '| `part.b` |  | One, two \\| three. |\n| `part.b.c` | `["x"]` | Is c. |\n' in said
    assert "| `part.tolerations` | `[]` | a pod's `tolerations` |\n" in said
