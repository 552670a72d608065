"""The check of the object store at an orchestrator's start."""

from __future__ import annotations

import logging

from iota.store import ObjectStore
from iota.store.checks import State

_log = logging.getLogger(__name__)


async def check_store(store: ObjectStore) -> None:
    """Find out how the store wants to be used, and log what it lacks.

    An embedded store leaves no choice, and may be away for now.

    Raises:
        ValueError: no run can work with it.
        StoreError: nothing can be found out now.
    """
    checks = await store.adapt()
    lacking = [found for found in checks if found.state is not State.WORKS]
    if fatal := [found for found in lacking if found.state is State.FATAL]:
        what = "; ".join(f"{found.name}: {found.found}: {found.follows}" for found in fatal)
        raise ValueError(f"no run can work with this object store ({what}): see `iota store check`")
    for found in lacking:
        _log.warning("the object store lacks %s: %s%s", found.name, found.found, found.consequence)
    if checks:
        _log.info(
            "the object store was checked: %d of %d things work", len(checks) - len(lacking), len(checks)
        )
