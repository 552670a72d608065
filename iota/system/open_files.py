"""How many files and sockets this process may have open."""

from __future__ import annotations

import sys
from typing import Final

_WANTED: Final = 1 << 16

if sys.platform == "win32":

    def most_open() -> int:
        """Files and sockets that this process may have open: Windows has no such bound."""
        return _WANTED

else:
    import resource

    def most_open() -> int:
        """Files and sockets that this process may have open, after it has asked for more than it was given.

        Systems give 1,024 at first, which some hundred connections and files can use up.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = _WANTED if hard == resource.RLIM_INFINITY else min(hard, _WANTED)
        if soft != resource.RLIM_INFINITY and soft < wanted:
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            except (OSError, ValueError):  # a system with a further bound, as macOS has
                return soft
            return wanted
        return wanted if soft == resource.RLIM_INFINITY else soft
