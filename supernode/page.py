"""The page that shows the state to people: one file, `page.html`, and the headers that let a browser run nothing beside it.

The script and the style in the file are named by their digests, so that what somebody brings into the page, in a name for
instance, is neither: the page may ask the supernode that it came from, and nobody else.
"""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files


def read() -> str:
    return files("supernode").joinpath("page.html").read_text("utf-8")


def headers_of(html: str) -> dict[str, str]:
    """The response headers of a page with this text. Raises ValueError for one that has not one script and one style."""
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    policy = {
        "default-src": "'none'",
        "script-src": _digest(script),
        "style-src": _digest(style),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Security-Policy": "; ".join(f"{kind} {sources}" for kind, sources in policy.items()),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
