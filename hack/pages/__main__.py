"""Writes what pages have from the code: `python -m hack.pages`; with `--check` it only says which pages are out of date."""

from __future__ import annotations

import sys

from hack.pages.marks import written_anew


def main() -> None:
    pages = written_anew()
    if "--check" not in sys.argv[1:]:
        for page, text in pages.items():
            page.write_text(text)
    elif old := [str(page) for page, text in pages.items() if page.read_text() != text]:
        raise SystemExit(f"{', '.join(old)}: write them anew: .venv/bin/python -m hack.pages")


if __name__ == "__main__":
    main()
