"""Plans: which replica runs which microbatch of a step, whole and as the share of one replica.

A replica gets its own share, with a Merkle path to the plan's root, which the orchestrator signs. The whole
plan is a public object of the run (`iota.objects.PlanKey`). Whoever has it makes every share and the root
from it, so two replicas cannot be told different plans without a contradiction that is signed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Annotated, Final, NamedTuple, Self

from blake3 import blake3
from pydantic import Field, model_validator

from iota.protocol.bridge import MAX_LR_FACTOR, MIN_LR_FACTOR
from iota.protocol.merkle import MAX_PATH, merkle_root, merkle_root_of
from iota.protocol.messages import Hotkey
from iota.spec import Frozen, Hex32, Listed, Positive, RunSpec, Small

PLAN_DOMAIN: Final = "plan/1"
"""Domain of the orchestrator's signature on a plan's root, and the version of a share's form."""

_SLACK: Final = 1e-9
"""Machines differ in the last bit of a cosine."""


class PlannedMicrobatch(NamedTuple):
    """One microbatch of a share, with the replicas that its frames come from and go to.

    A tuple, since a step has one for each op: `[microbatch, before, after]` in JSON.
    """

    microbatch: Small
    before: Hotkey | None
    """The replica of the stage before; None at stage 0."""
    after: Hotkey | None
    """The replica of the next stage; None at the last one."""


class PlanShare(Frozen):
    """What a step's plan says about one replica of one stage."""

    epoch: Small
    step: Small
    learning_rate: float
    stage: Small
    hotkey: Hotkey
    microbatches: Listed[PlannedMicrobatch]
    """By number of the microbatch."""

    def digest(self) -> str:
        """BLAKE3 (hex) of the share's text: its leaf in the plan's Merkle tree.

        The text has a line `epoch step learning-rate stage hotkey`, and one `number before after` for each
        microbatch, with `-` for none and the learning rate as in C's `%a`.
        """
        first = f"{self.epoch} {self.step} {self.learning_rate.hex()} {self.stage} {self.hotkey}"
        rest = [f"{m.microbatch} {m.before or '-'} {m.after or '-'}" for m in self.microbatches]
        return blake3("\n".join([PLAN_DOMAIN, first, *rest]).encode()).hexdigest()


class PlanProof(Frozen):
    """Where a share stands in the plan's Merkle tree."""

    root: Hex32
    at: Small
    count: Positive
    """Shares in the tree."""
    path: Annotated[tuple[Hex32, ...], Field(max_length=MAX_PATH)]

    def covers(self, share: PlanShare) -> bool:
        """Whether the root is that of a tree with this share at `at`."""
        return merkle_root_of(share.digest(), self.at, self.count, self.path) == self.root


class WholePlan(Frozen):
    """The plan of one step: a route for each microbatch, and the learning rate.

    Each plan has one form, and so one root: a member without work is refused, since no share would tell it.
    """

    epoch: Small
    step: Small
    learning_rate: float
    members: Listed[Hotkey]
    """In order; each has work, at one stage."""
    routes: Annotated[tuple[Annotated[tuple[Small, ...], Field(min_length=1)], ...], Field(min_length=1)]
    """routes[i][s]: index into `members` of the replica of stage s for microbatch i (attempt 0)."""

    @model_validator(mode="after")
    def _has_one_form(self) -> Self:
        if any(a >= b for a, b in pairwise(self.members)):
            raise ValueError("its members are not in order, or one comes twice")
        if len({len(route) for route in self.routes}) > 1:
            raise ValueError("its routes have different numbers of stages")
        at_stages = [index for column in zip(*self.routes, strict=True) for index in set(column)]
        if sorted(at_stages) != list(range(len(self.members))):
            raise ValueError("a member has no work, has it at two stages, or is not listed")
        return self

    def route(self, microbatch: int) -> tuple[str, ...]:
        """The hotkeys that the plan gives a microbatch to, in order of stage."""
        return tuple(self.members[index] for index in self.routes[microbatch])

    def shares(self) -> Iterator[PlanShare]:
        """The share of each replica that has work, by stage and index of the member: the tree's leaves."""
        names: Sequence[str | None] = (*self.members, None)
        stages = len(self.routes[0])
        for stage in range(stages):
            own: dict[int, list[PlannedMicrobatch]] = {}
            for index, route in enumerate(self.routes):
                before = route[stage - 1] if stage > 0 else -1
                after = route[stage + 1] if stage + 1 < stages else -1
                planned = PlannedMicrobatch(index, names[before], names[after])
                own.setdefault(route[stage], []).append(planned)
            for member, microbatches in sorted(own.items()):
                yield PlanShare(
                    epoch=self.epoch,
                    step=self.step,
                    learning_rate=self.learning_rate,
                    stage=stage,
                    hotkey=self.members[member],
                    microbatches=tuple(microbatches),
                )

    def root(self) -> str:
        """The Merkle root of the shares, by which the plan is named."""
        return merkle_root([share.digest() for share in self.shares()])


def allows_rate(spec: RunSpec, plan: PlanShare | WholePlan) -> bool:
    """Whether a plan's learning rate is the spec's times a factor that an operator may set (`LR_FACTOR`)."""
    rate = spec.learning_rate(plan.epoch, plan.step)
    return (1 - _SLACK) * MIN_LR_FACTOR * rate <= plan.learning_rate <= (1 + _SLACK) * MAX_LR_FACTOR * rate


def signed_root(run: str, epoch: int, step: int, proof: PlanProof) -> bytes:
    """The payload of the orchestrator's signature on a plan (domain: `PLAN_DOMAIN`).

    It has the number of shares too: the same path would do for a tree of one leaf more or less.
    """
    return f"{run}\n{epoch}\n{step}\n{proof.count}\n{proof.root}".encode()
