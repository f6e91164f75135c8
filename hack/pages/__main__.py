"""Writes what pages have from the code: `python -m hack.pages`."""

from __future__ import annotations

from hack.pages.marks import written_anew

if __name__ == "__main__":
    for page, text in written_anew().items():
        page.write_text(text)
