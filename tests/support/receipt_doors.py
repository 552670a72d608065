"""An intake before a run in training, whose members give receipts that a test may change."""

from __future__ import annotations

from typing import Any

import pytest

from iota.protocol.frames import Direction
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    Capabilities,
    ExchangeRequest,
    JoinRequest,
    Ready,
    Role,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.receipts import OpKind, Receipt, ReceiptBatch, StepUpdate
from iota.spec import Pipeline, RunSpec
from orchestrator.coordinator import Exchanged, Joined
from orchestrator.coordinator.epoch_state import counted_pairs
from orchestrator.coordinator.member import Member
from orchestrator.intake import Intake
from tests.support.coordinators import Driven
from tests.support.receipts import commit_content, content, frame_name, named_input, step_content
from tests.support.virtual_runs import tiny_spec

DEVICE = "test"


def a_spec(**changes: Any) -> RunSpec:
    given = {"stages": 3, "replicas": 2, "epochs": 2, "steps": 3, "microbatches": 4, "credit": 2}
    return tiny_spec(**{"pipeline": Pipeline.DELAYED, **given, **changes})


class Door:
    """An intake before a run in training. Members say true things unless a test changes them."""

    def __init__(self, spec: RunSpec | None = None) -> None:
        self.driven = Driven.training(spec or a_spec())
        self.intake = Intake(self.driven.coordinator, verify=lambda message, signature, hotkey: True)
        self.run, self.spec = self.driven.state, self.driven.state.spec

    def holder(self, stage: int, microbatch: int = 0, step: int = 0) -> Member:
        return self.run.members[self.run.current.steps[step].microbatches[microbatch].places[stage].miner]

    def receipt(self, member: Member, kind: OpKind, microbatch: int = 0, **changes: Any) -> Receipt:
        """The next receipt of `member`, of an op that reads the frames of attempt 0."""
        given: dict[str, Any] = {
            "seq": member.receipts + 1, "previous": member.head, "epoch": self.run.epoch, "step": 0,
            "microbatch": 0 if kind is OpKind.STEP else microbatch, "stage": member.stage, "kind": kind,
            "version": 0, "started": self.driven.now, "ended": self.driven.now, "device": DEVICE,
            **content(kind, self.spec.data.tokens),
        } | changes  # fmt: skip
        if kind is OpKind.STEP and "update" not in changes:
            given["update"] = self.applied(member, given["step"], given["epoch"])
        if kind is OpKind.STEP and given["update"] is not None and "output" not in changes:
            given["output"] = given["update"].counted
        if "inputs" not in given and kind not in (OpKind.STEP, OpKind.COMMIT):
            given["inputs"] = self.inputs(member, kind, microbatch, given["step"])
        return Receipt.model_validate(given)

    def applied(self, member: Member, step: int, epoch: int = 0) -> StepUpdate:
        """What a STEP says that applied what its step's close tells the member."""
        planned = self.run.epochs[epoch].steps[step]
        counted = counted_pairs(planned.order.get(member.hotkey, bytearray()))
        update = step_content(counted, planned.learning_rate)["update"]
        assert isinstance(update, StepUpdate)
        return update

    def step(self, member: Member, step: int, epoch: int = 0) -> Receipt:
        """The STEP of a step, by a member that joined with the epoch."""
        version = self.spec.weight_version(step)
        return self.receipt(member, OpKind.STEP, step=step, version=version, epoch=epoch)

    def commit(self, member: Member, number: int, joined: int = 0, **changes: Any) -> Receipt:
        """The COMMIT to version `number`, by a member that joined the epoch at step `joined`."""
        given: dict[str, Any] = {"step": number, "version": number}
        given |= commit_content(before=self.spec.has_before(number, joined), first=number == joined)
        return self.receipt(member, OpKind.COMMIT, **given | changes)

    def inputs(self, member: Member, kind: OpKind, microbatch: int, step: int = 0) -> tuple[Any, ...]:
        stages = [(member.stage - 1, Direction.FORWARD)] if member.stage else []
        stages += [(member.stage + 1, Direction.BACKWARD)] if kind is OpKind.BACKWARD else []
        return tuple(
            named_input(
                self.spec,
                frame_name(stage, direction, microbatch, epoch=self.run.epoch, step=step),
                self.holder(stage, microbatch, step).hotkey,
                member.hotkey,
            )
            for stage, direction in stages
        )

    def send(self, member: Member, *receipts: Receipt) -> None:
        """One batch. Raises Problem where it is refused."""
        self.driven.coordinator.apply(self.checked(member, *receipts))
        assert not self.run.incidents.internal

    def checked(self, member: Member, *receipts: Receipt) -> Exchanged:
        """The entry of a batch of such receipts, chained. Raises Problem where it is refused."""
        chained: list[Receipt] = []
        for receipt in receipts:
            if chained:
                at = {"seq": chained[-1].seq + 1, "previous": chained[-1].content_digest()}
                receipt = receipt.model_copy(update=at)
            chained.append(receipt)
        batch = ReceiptBatch(receipts=tuple(chained), signature="0" * 128)
        said = self.intake.exchange(
            member.hotkey, ExchangeRequest(cursor=0, receipts=batch), at=self.driven.now
        )
        assert said is not None
        return said

    def refused(self, why: str, member: Member, *receipts: Receipt) -> None:
        with pytest.raises(Problem, match=why) as caught:
            self.send(member, *receipts)
        assert caught.value.type is ProblemType.BAD_RECEIPTS

    def rejoin(
        self, member: Member, *, receipts: int | None = None, ready: bool = True, device: str = DEVICE
    ) -> None:
        """It has lost its base, and keeps its receipts; then it holds the base again."""
        request = JoinRequest(
            role=Role.MINER,
            versions=(PROTOCOL_VERSION,),
            capabilities=Capabilities(device=device, memory=1, flops=1.0),
            receipts=member.receipts if receipts is None else receipts,
        )
        self.driven.coordinator.apply(Joined(at=self.driven.now, hotkey=member.hotkey, request=request))
        if ready:
            self.driven.say(member, reports=[Ready(epoch=0, digest=f"{member.stage:064x}")])

    def close_step(self) -> None:
        """Every microbatch of the first open step ends; its STEPs are not receipted."""
        step = self.run.current.closed_steps
        for index in range(self.spec.schedule.microbatches):
            self.driven.run_ops(step, index)
        assert self.run.current.closed_steps == step + 1
