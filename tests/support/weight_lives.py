"""One life of a validator that sets weights: a process, from its start to its end or its kill."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iota.identity.keys import Hotkey

ROOT = Path(__file__).parents[2]
MINERS = [Hotkey.from_seed(bytes([n]) * 32) for n in (2, 3)]
SCORES = {MINERS[0].ss58: 0.75, MINERS[1].ss58: 0.25}
ROW = {MINERS[0].ss58: 65535, MINERS[1].ss58: 21845}
"""What the scores are on a chain."""
LONGEST_S = 150


@dataclass(frozen=True)
class Ended:
    code: int
    plans: list[dict[str, Any]]
    """As its database shows them, the newest first; none of one that was killed."""
    log: str


def live(network: str, folder: Path, *more: str) -> Ended:
    """Runs `weight_driver` with the wallet and the database in `folder`. Blocking."""
    command = [
        sys.executable, "-m", "tests.support.weight_driver", network, str(folder / "wallets"),
        str(folder / "validator"), json.dumps(SCORES), *more,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=LONGEST_S, check=False)
    plans = json.loads(done.stdout) if done.returncode == 0 else []
    return Ended(done.returncode, plans, done.stderr[-4000:])
