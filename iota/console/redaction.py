"""Makes text of others fit to show: secrets are removed from URLs, and what commands a terminal."""

from __future__ import annotations

import re
from typing import Final

_URL: Final = re.compile(
    r"""
    \b(wss?|https?)://
    (?:[^\s/'"]*@)?                        # user and password
    (\[[0-9a-fA-F:.]+\]|[^\s/?\#'",;:)]+)  # host
    (?:(:\d+)\b|:[^\s/?\#'"]+)?            # port, or other text in its place
    ([/?\#][^\s'"]*)?                      # path, query, fragment
    """,
    re.VERBOSE | re.IGNORECASE,
)


def printable(text: str) -> str:
    """`text` on one line, without characters that command a terminal or reorder what it shows.

    White space of any kind becomes blanks, every other character that does not print a question mark.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)


def one_line(text: str) -> str:
    """`text` on one printable line: each run of white space becomes a blank, and secrets are removed."""
    return printable(without_secrets(" ".join(text.split())))


def without_secrets(text: str) -> str:
    """`text` with each URL cut to scheme, host, port and, for http, path.

    Providers of chain nodes put an API key in the path of a ws URL; presigned URLs are signed in the query.
    """

    def shown(url: re.Match[str]) -> str:
        path = re.split("[?#]", url[4] or "")[0] if url[1].lower().startswith("http") else ""
        return f"{url[1]}://{url[2]}{url[3] or ''}{path}"

    return _URL.sub(shown, text)
