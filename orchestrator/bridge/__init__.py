"""The Bridge: variables that a run's members share, as a pure state machine inside the coordinator's.

`Bridge` is its state; `writing` decides on a write (`rights`, `conflicts`, `bounds`), `reading` makes
pages and changes for readers.
"""

from orchestrator.bridge.bridge import Bridge, Writer
from orchestrator.bridge.reading import changes_after, find, page
from orchestrator.bridge.refusals import Conflict, Forbidden, Refusal, Unfit
from orchestrator.bridge.writing import decide, write

__all__ = [
    "Bridge",
    "Conflict",
    "Forbidden",
    "Refusal",
    "Unfit",
    "Writer",
    "changes_after",
    "decide",
    "find",
    "page",
    "write",
]
