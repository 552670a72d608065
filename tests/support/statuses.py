"""Statuses of runs as an orchestrator gives them, of any number of members, for what shows them."""

from __future__ import annotations

import math
from typing import Any

from iota.simulate.names import fake_hotkey

DEVICE = "cuda/NVIDIA GeForce RTX 4090/cuda12.8/torch2.13.0"


def run_status(members: int = 3, stages: int = 3, **changes: Any) -> dict[str, Any]:
    """Step 12 of 20 of the second of three epochs: `members` miners in `stages`, and a validator."""
    losses = [5.5 * math.exp(-step / 40) + 0.02 * (step % 5) for step in range(32)]
    rows = [member(number, number % stages) for number in range(members)]
    rows.append(member(members, -1, role="validator", device="cpu/x86_64/AVX512/t1/torch2.13.0"))
    found = {
        "run": "ab" * 32,
        "name": "small",
        "phase": "training",
        "waiting": None,
        "epoch": 1,
        "epochs": 3,
        "step": 12,
        "steps": 20,
        "open_microbatches": 8,
        "losses": losses,
        "losses_from": 0,
        "losses_total": len(losses),
        "merges": [20],
        "heldout": {"0": 5.55, "1": 3.61},
        "tokens": 262_144,
        "settled": 256,
        "dropped": 1,
        "rerouted": 4,
        "audits": {"passed": 6, "failed": 1, "undelivered": 0, "inconclusive": 0, "closed_epochs": 1},
        "weights": {rows[-1]["hotkey"]: {row["hotkey"]: 1 / members for row in rows[:-1]}},
        "validator_compute_share": {},
        "verdicts": [
            {
                "validator": rows[-1]["hotkey"],
                "miner": rows[0]["hotkey"],
                "epoch": 0,
                "audit": "op",
                "outcome": "fail",
                "reason": "another output",
            }
        ],
        "named": [f"{rows[0]['hotkey']} missed a deadline at stage 0"],
        "members": rows,
        "nodes": {row["hotkey"]: node(row) for row in rows},
        "finished": False,
    }
    return {**found, **changes}


def member(number: int, stage: int, role: str = "miner", device: str = DEVICE) -> dict[str, Any]:
    """One member of a status."""
    return {
        "hotkey": fake_hotkey(number),
        "owner": fake_hotkey(number),
        "revoked": False,
        "order": number,
        "role": role,
        "stage": stage,
        "live": True,
        "stalled": False,
        "tokens": 87_000 + number,
        "withdrawn": 0,
        "audits": {"pass": 2, "fail": int(number == 0), "undelivered": 0, "inconclusive": 0},
        "device": device,
    }


def node(member: dict[str, Any]) -> dict[str, Any]:
    """What a member says of itself: stage 1 waits least."""
    wait = 10.0 if member["stage"] == 1 else 40.0
    return {
        "state": "epoch 1 step 12",
        "tokens_per_second": 1234.0,
        "seconds": {"compute": 60.0, "serialise": 2.0, "transfer": 9.0, "wait": wait},
        "memory": 700_000_000,
    }


def names_of(status: dict[str, Any]) -> dict[str, str]:
    """Names as `iota up` gives them, by hotkey."""
    return {
        m["hotkey"]: "validator" if m["role"] == "validator" else f"miner-{m['order']:02d}"
        for m in status["members"]
    }
