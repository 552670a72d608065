"""Swarms with cheats of `tests.support.cheats`: every miner's cheat of docs/threat-model.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from iota.settings import Ways

STEPS: Final = 3
"""Steps of an epoch in the short swarms, and of a window: a segment of each miner and epoch is audited."""


@dataclass(frozen=True)
class Case:
    """A swarm of two stages with two replicas, and the cheat of some of its miners by name."""

    cheats: dict[str, str]
    epochs: int = 3
    more: dict[str, Any] = field(default_factory=dict)
    most: float = 0.0
    """What the cheat may earn, as a share of what the honest miner earns that has least."""
    accomplices: frozenset[str] = frozenset()
    """Of the cheats those that work honestly themselves, and may be paid."""
    unpaid: str = ""
    """Why it is not paid, where no audit finds it."""
    misnames: bool = False
    """The run takes its word against an honest miner, whose pay validators know better than to cut."""
    way: Ways | None = None
    """--transport of its miners; None: the product's default."""
    occasional: bool = False
    """It lies seldom. At the default rates what it gains on average counts, and not how soon it is found."""


FIRST, LAST = "miner-00", "miner-01"
"""Of stage 0 and of stage 1, with miner-02 and miner-03 beside them."""
_SIX: Final = {"steps_per_epoch": 6, "values": {"audit": {"window_steps": 6, "deadline_s": 60}}}
_MIDDLE: Final = {"stages": 3}
"""LAST has the middle one of three stages then, with miner-04 beside it."""
_HELDOUT: Final = {"values": {"schedule": {"heldout": 4}, "audit": {"window_steps": STEPS, "deadline_s": 60}}}
_SNAPSHOTS: Final = {
    "values": {"audit": {"commit_every": 2, "window_steps": STEPS, "extra_every": 1, "deadline_s": 60}}
}
"""Two segments an epoch, of which the later one begins with a snapshot; two draws an epoch."""
OVERLAP: Final[dict[str, Any]] = {
    "replicas": 3,
    "values": {"outer": {"overlap": "one_epoch"}, "audit": {"window_steps": STEPS, "deadline_s": 60}},
}
"""Each epoch begins while the one before is merged."""
_DEFAULTS: Final = {"steps_per_epoch": 10, "values": {"audit": {"deadline_s": 60}}}


def _one(cheat: str, miner: str = FIRST, **more: Any) -> Case:
    return Case({miner: cheat}, **more)


def _three(cheat: str, **more: Any) -> Case:
    return Case({f"miner-0{n}": cheat for n in (0, 1, 2)}, **more)


CASES: Final = {
    "noise": _one("compute:noise"),
    "noise of the result's norm": _one("compute:scaled_noise"),
    "zeros": _one("compute:zeros"),
    "constants": _one("compute:constants", LAST),
    "what it received, without layers": _one("compute:identity", LAST, more=_MIDDLE),
    "one microbatch's results for all": _one("compute:repeats"),
    "a sibling's results": Case(
        {"miner-00": "pairs:lends", "miner-02": "pairs:copies"}, accomplices=frozenset({"miner-00"})
    ),
    "half of the batch, padded": _one("compute:half_batch"),
    "one token of each microbatch zero": _one("compute:one_token"),
    "always the base's weights": _one("compute:stale"),
    "backward zero": _one("compute:no_backward", LAST, more=_MIDDLE),
    "backward times 3": _one("compute:scaled_backward", LAST),
    "backward with the other sign": _one("compute:flipped_backward", LAST),
    "half of the loss": _one("compute:false_loss", LAST),
    "false held-out loss": _one("compute:false_heldout_loss", LAST, more=_HELDOUT),
    "noise in held-out microbatches alone": _one("compute:heldout_noise", more=_HELDOUT),
    "bf16 in place of fp32": _one("compute:low_precision"),
    "bf16 in place of fp32, as another device class": _one("compute:low_precision_elsewhere"),
    "noise of the result's norm, as another device class": _one("compute:noise_elsewhere"),
    "noise in 5 % of its ops": _one("compute:occasional", occasional=True),
    "never steps": _one("states:never_steps"),
    "never steps, and nudges one weight": _one("states:still"),
    "never steps, and nudges one weight, at the default rates": _one(
        "states:still", epochs=6, more=_DEFAULTS
    ),
    "three times the learning rate": _one("states:fast"),
    "a random change of the right norm": _one("states:foreign_change", LAST),
    "leaves out its last STEP": _one("states:no_last_step"),
    "leaves out one STEP an epoch": _one("states:one_step", occasional=True),
    "leaves one tensor out of one STEP": _one("states:one_tensor", occasional=True),
    "commits to other weights": _one("states:false_commitment"),
    "pseudo-gradient times -100": _one("states:reversed_delta"),
    "pseudo-gradient with the other sign": _one("states:flipped_delta"),
    "pseudo-gradient of NaN": _one("states:nan_delta"),
    "pseudo-gradient of 1e30": _one("states:huge_delta"),
    "one tensor of the pseudo-gradient times 1.1": _one("states:one_delta_tensor"),
    "one element of the pseudo-gradient nudged": _one("states:one_delta_element", LAST),
    "no pseudo-gradient": _one("states:no_delta", epochs=2),  # each merge waits for its deadline
    "leaves out its last STEP and the receipt": _one("words:no_last_receipt", epochs=2),  # so does this
    "an unreadable pseudo-gradient": _one("states:unreadable_delta"),
    "noise contributed, and its own weights gone on with": _one("starts:hides_noise", more=OVERLAP),
    "another start than its contribution gives": _one("starts:nudges_its_start", more=OVERLAP),
    "its own start committed to, and the anchor computed with": _one(
        "starts:computes_with_the_anchor", LAST, more=OVERLAP
    ),
    "no work after the base, and no snapshot": _one("evidence:lazy", more=_SNAPSHOTS),
    "no work after the base, no snapshot, and no second replica": _one(
        "evidence:lazy", more={"replicas": 1, **_SNAPSHOTS}
    ),
    "no work after the base, and deletes its snapshots": _one("evidence:deletes_snapshots", more=_SNAPSHOTS),
    "no work after the base, and leaves when drawn": _one(
        "evidence:leaves", more=_SNAPSHOTS, occasional=True
    ),
    "joins anew before every STEP": _one(
        "evidence:rejoins", unpaid="no segment of its ever passes", occasional=True
    ),
    "constants after the base, and joins anew": _one(
        "evidence:lies_and_joins_anew",
        more=_SIX,
        most=0.9,
        unpaid="what no audit can show is not paid",
        occasional=True,
    ),
    "constants forward, and no backward for them": _one("evidence:forwards_alone", more=_SIX),
    "frames that are not stored, and constants": Case(
        {"miner-00": "evidence:unstored_frames", "miner-01": "compute:constants"}
    ),
    "frames that are not sent, acknowledged by a partner": Case(
        {"miner-00": "evidence:unsent_frames", "miner-01": "evidence:makes_inputs_up"},
    ),
    "other frames than its receipts say": _one("evidence:other_frames"),
    "a lying merger": _one("merges:lying_merger", most=1.0),
    "three lying mergers": _three("merges:lying_merger"),
    "three mergers against one": _three("merges:excluding_merger", misnames=True),
    "noise without receipts": _one("words:no_forward_receipts"),
    "second receipts": _one("words:second_receipts"),
    "denied frames": _one("words:denier", LAST, most=0.9, way=Ways.STORE),
    "false NaN": _one("words:crier", LAST),
}
