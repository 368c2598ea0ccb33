"""What of a URL may be shown and kept: not the parts that hold passwords and tokens."""

from __future__ import annotations

import re

_URL = re.compile(r"(https?://)(?:[^\s/?#@]*@)?([^\s?#]*)(\?[^\s#]*)?(?:#\S*)?", re.IGNORECASE)


def public(text: str) -> str:
    """`text` with every URL in it bare: without user, query and fragment; `?...` for a query."""
    return _URL.sub(lambda url: url[1] + url[2] + ("?..." if url[3] else ""), text)
