"""The page at ``/``: one HTML file without anything from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files

PAGE = files("fllm_export.server").joinpath("page.html").read_text("utf-8")


def _hash(tag: str) -> str:
    found = re.search(f"<{tag}>(.*?)</{tag}>", PAGE, re.DOTALL)
    digest = hashlib.sha256((found[1] if found else "").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


PAGE_HEADERS = {
    "content-security-policy": f"default-src 'none'; script-src {_hash('script')}; style-src {_hash('style')}; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
