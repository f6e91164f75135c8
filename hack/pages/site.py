"""What the site has beside docs/: pages that stand elsewhere in the tree, every decision, and links to code. A hook of MkDocs.

Pages link as a reader of the repository needs it, also out of docs/. On the site a link to one of the pages below leads to its
copy there, and a link to a file of code, which the site has not, becomes the file's name.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

TREE: Final = Path(__file__).parents[2]
PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "SECURITY.md": "security-policy.md",
    "charts/darner/README.md": "values.md",
}
"""Where a file of the tree stands on the site, under docs/. The site's first page is its own: the README tells of the tree."""
OWN: Final = frozenset({"index.md"})
LINK: Final = re.compile(r"(?<!!)\[(?P<text>(?:[^\[\]]|\[[^\]]*\])*)\]\((?P<target>[^)\s]+)\)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    for source, page in PAGES.items():
        if page not in OWN:
            files.append(File.generated(config, page, content=(TREE / source).read_text()))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    source = next((source for source, name in PAGES.items() if name == page.file.src_uri and name not in OWN), None)
    return as_the_site_has_it(markdown, source or f"docs/{page.file.src_uri}", page.file.src_uri)


def as_the_site_has_it(markdown: str, source: str, page: str) -> str:
    """The text of a page with its links as the site has them. `source` is its path in the tree, `page` its path on the site."""

    def changed(link: re.Match[str]) -> str:
        text, target = link["text"], link["target"]
        if re.match(r"[a-z]+:|#", target):
            return link[0]
        path, _, anchor = target.partition("#")
        where = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        known = PAGES.get(where) or (where.removeprefix("docs/") if where.startswith("docs/") else None)
        if known is None or not (where in PAGES or Path(where).suffix):
            if not (TREE / where).exists():
                return link[0]  # which the strict build then refuses
            return text
        relative = posixpath.relpath(known, posixpath.dirname(page) or ".")
        return f"[{text}]({relative}{'#' + anchor if anchor else ''})"

    return LINK.sub(changed, markdown)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """`decisions/` of the navigation is every decision, in its order."""
    config.nav = [_filled(item) for item in config.nav or []]
    return config


def _filled(item: Any) -> Any:
    if isinstance(item, dict):
        return {title: _filled(inner) for title, inner in item.items()}
    if isinstance(item, list):
        return [_filled(inner) for inner in item]
    if isinstance(item, str) and item.endswith("/"):
        return [f"{item}{file.name}" for file in sorted((TREE / "docs" / item).glob("*.md"))]
    return item
