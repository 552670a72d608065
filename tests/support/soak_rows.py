"""Which work `scripts/soak_audits.py` makes and audits: seeded rows of a matrix of runs and kernels."""

from __future__ import annotations

import random
from functools import partial
from typing import Any, Final

from iota.compute.tokens import Tokens
from iota.settings import Activations
from iota.spec import (
    AuditSpec,
    Count,
    Frozen,
    OptimizerKind,
    Pipeline,
    Positive,
    Precision,
    RunSpec,
    WireDtype,
)
from tests.support.small_runs import small_run
from validator.calibration.text import tokens
from validator.calibration.variants import Variant, is_left_out, variants

VARIANTS: Final = {variant.name: variant for variant in variants((1, 2, 3, 4))}
"""How one process computes, by name: kernels, and 1 to 4 threads."""
_SIZES: Final[dict[str, dict[str, Any]]] = {
    "nano": {"model": (32, 48), "data": (12, 2)},
    "tiny": {"model": (128, 352), "data": (64, 2)},
    "small": {"model": (256, 704), "data": (128, 8)},
}
"""(hidden_size, ffn_size) and (sequence_length, sequences); `small` is the largest that profiles ship for."""
_RATES: Final = {OptimizerKind.ADAMW: 3e-3, OptimizerKind.MUON: 2e-2, OptimizerKind.SGD: 3e-2}
_EPOCHS: Final = 3
_TEXTS: Final = 100
"""Texts of one row: more than epochs."""


class Auditor(Frozen):
    """A validator of a row."""

    variant: str
    max_threads: Positive
    """Up to so many it takes the miner's number of threads."""


class Row(Frozen):
    """One run, made by miners of one kind and audited by validators of others."""

    number: Count
    spec: RunSpec
    size: str
    maker: str
    """The variant of the miners."""
    activations: Activations
    lies: bool
    """The middle stage computes in bf16, whatever the spec says, and all name a class that nobody has."""
    auditors: tuple[Auditor, ...]

    @property
    def epochs(self) -> int:
        """Epochs that are trained and audited."""
        return self.spec.schedule.epochs


def row(seed: int, number: int, *, lies: bool = False) -> Row:
    """Row `number` of the matrix. The precision and the optimizer go by turns, the rest is drawn."""
    rng = random.Random(f"{seed}/{number}")
    bf16 = Precision.BF16_SR if number % 2 else Precision.BF16_MASTER
    precision = Precision.FP32 if lies or number % 3 else bf16
    optimizer = list(OptimizerKind)[number // 3 % len(OptimizerKind)]
    # Profiles ship for bf16 wires and `resbm-anchor`: half of the rows have them.
    wire, codec = WireDtype.BF16, "resbm-anchor"
    if number % 2:
        wire = rng.choice(list(WireDtype))
        codec = rng.choice(("identity", "resbm", "resbm-anchor"))
    size = "small" if number % 48 == 14 else "tiny" if number % 5 == 3 else "nano"
    spec = small_run(
        model=_model(*_SIZES[size]["model"]),
        data=dict(zip(("sequence_length", "sequences"), _SIZES[size]["data"], strict=True)),
        boundary={"codec": codec, "wire": wire},
        precision=precision,
        schedule={
            "epochs": _EPOCHS,
            "steps": rng.choice((4, 5, 6)),
            "microbatches": rng.choice((2, 3, 4)),
            "pipeline": rng.choice(list(Pipeline)),
        },
        optimizer={
            "kind": optimizer,
            "lr": _RATES[optimizer] * rng.choice((0.3, 1.0)),
            "state": rng.choice(("carry", "reset")),
        },
        outer={"part_elements": 1 << 16},
        audit=AuditSpec(commit_every=rng.choice((1, 2, 3, 5))),
        seed=rng.randrange(1 << 16),
    )
    usable = [name for name, variant in VARIANTS.items() if not is_left_out(variant, precision)]
    maker = rng.choice(usable)
    others = [name for name in usable if _kernels(name) != _kernels(maker)] or usable
    first = rng.choice([name for name in others if name != maker])
    second = rng.choice([name for name in usable if name not in (maker, first)])
    return Row(
        number=number,
        spec=spec,
        size=size,
        maker=maker,
        activations=rng.choice([policy for policy in Activations if policy is not Activations.AUTO]),
        lies=lies,
        auditors=tuple(
            Auditor(variant=name, max_threads=rng.choice((4, *[VARIANTS[name].threads] * 3)))
            for name in (first, second)
        ),
    )


def batches(made: Row) -> partial[Tokens]:
    """(epoch, step, index) -> tokens: text that a model can learn."""
    return partial(_text, made)


def variant_of(name: str) -> Variant:
    """The variant of a name."""
    return VARIANTS[name]


def _kernels(name: str) -> str | None:
    """Torch's kernels, which a device class names."""
    return VARIANTS[name].environment.get("ATEN_CPU_CAPABILITY")


def _text(made: Row, epoch: int, step: int, index: int) -> Tokens:
    return tokens(made.spec, made.number * _TEXTS + epoch, step, index)


def _model(hidden: int, ffn: int) -> dict[str, Any]:
    return {"vocab_size": 257, "hidden_size": hidden, "ffn_size": ffn}
