"""What of a URL may be shown. Messages and logs go through here wherever a URL may hold a secret."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(
    r"""
    \b(wss?|https?)://
    (?:[^\s/'"]*@)?                        # user and password
    (\[[0-9a-fA-F:.]+\]|[^\s/?\#'",;:)]+)  # host
    (?:(:\d+)\b|:[^\s/?\#'"]+)?            # port, or what stands in its place
    ([/?\#][^\s'"]*)?                      # path, query, fragment
    """,
    re.VERBOSE | re.IGNORECASE,
)


def one_line(text: str) -> str:
    """`text` with every run of white space as one blank, and `without_secrets`."""
    return without_secrets(" ".join(text.split()))


def without_secrets(text: str) -> str:
    """`text` with each URL cut to what may be shown: no user, password or query, and no path of a chain node.

    Nodes of a chain are sold with the key in the path; presigned URLs have theirs in the query.
    """

    def shown(url: re.Match[str]) -> str:
        path = re.split("[?#]", url[4] or "")[0] if url[1].lower().startswith("http") else ""
        return f"{url[1]}://{url[2]}{url[3] or ''}{path}"

    return _URL.sub(shown, text)
