"""A miner that sends its receipts in any order, over its lives and over batches, breaks no record.

What the intake takes is sealed, and validators must be able to check it: else one miner voids the epoch of
everybody. The miner is lost and joins anew at any time, keeps receipts back, and sends them late.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from iota.protocol.frames import Direction, StoredObject
from iota.protocol.merges import merge_output
from iota.protocol.messages import Delta
from iota.protocol.plans import WholePlan
from iota.protocol.problems import Problem
from iota.protocol.receipts import OpKind, Receipt, SignedHeader
from iota.spec import Pipeline
from orchestrator.coordinator import Exchanged
from orchestrator.coordinator.lives import life_of
from orchestrator.coordinator.state import Phase
from tests.support.receipt_doors import Door, a_spec
from tests.support.receipts import frame_name, named_input
from validator.core import all_receipts
from validator.core.sealed import SealedEpoch

STEPS, MICROBATCHES = 2, 4
KINDS = (OpKind.FORWARD, OpKind.FORWARD, OpKind.BACKWARD, OpKind.STEP, OpKind.COMMIT, OpKind.MERGE)
Move = tuple[str, list[tuple[OpKind, int]]]

receipts = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), max_size=6)
moves = st.tuples(st.sampled_from(["close", "join", "lose", "send", "send"]), receipts)


class HostileDoor(Door):
    """A door before which one miner of the first stage is hostile, and all others do their work."""

    def __init__(self, pipeline: Pipeline, commit_every: int) -> None:
        given = {"steps": STEPS, "microbatches": MICROBATCHES, "commit_every": commit_every}
        super().__init__(a_spec(stages=2, pipeline=pipeline, **given))
        self.liar = self.holder(0)
        self.plans: list[WholePlan] = self.driven.coordinator.take_plans()
        self.taken: dict[str, list[Receipt]] = defaultdict(list)
        apply = self.driven.coordinator.apply

        def noted(entry: object) -> None:
            known = {hotkey: member.receipts for hotkey, member in self.run.members.items()}
            apply(entry)  # type: ignore[arg-type]
            self.plans += self.driven.coordinator.take_plans()
            if isinstance(entry, Exchanged):
                self.taken[entry.hotkey] += [r for r in entry.receipts if r.seq > known[entry.hotkey]]

        self.driven.coordinator.apply = noted  # type: ignore[method-assign]

    def move(self, move: Move) -> None:
        """One move of the hostile miner, or the end of a step in which it does nothing."""
        what, wanted = move
        if what == "lose":
            self.driven.lose(self.liar)
            self.driven.come_back(self.liar)
        elif what == "join":
            self.rejoin(self.liar)
        elif what == "close" and self.run.phase is not Phase.MERGING:
            self.close()
        possible = {kind: self.possible(kind) for kind in KINDS}
        self.give([possible[kind][n % len(possible[kind])] for kind, n in wanted if possible[kind]])

    def give(self, wanted: list[Receipt]) -> None:
        """Send one batch: each of the receipts that may follow those before it."""
        batch: list[Receipt] = []
        for receipt in wanted:
            with suppress(Problem):
                self.checked(self.liar, *batch, receipt)
                batch.append(receipt)
        if batch:
            self.send(self.liar, *batch)

    def possible(self, kind: OpKind) -> list[Receipt]:
        """Receipts of the ops of this kind that the miner was given, in whichever of its lives that was."""
        epoch, found = self.run.current, []
        if kind is OpKind.MERGE:
            merge = self.driven.receipt(self.liar, kind, 0, 0)
            output = merge_output(f"{7:064x}", {})
            stages = range(2 if epoch.merges else 0)
            return [merge.model_copy(update={"stage": stage, "output": output}) for stage in stages]
        if kind is OpKind.COMMIT:
            joined = {life.joined for life in epoch.lives[self.liar.hotkey]}
            versions = range(STEPS + 1)
            return [self.commit(self.liar, version, step) for version in versions for step in joined]
        names = [(0, 0)] if kind is OpKind.STEP else [(mb, n) for mb in range(MICROBATCHES) for n in range(3)]
        for step in range(len(epoch.steps)):
            for microbatch, attempt in names:
                inputs = self.gradient(step, microbatch) if kind is OpKind.BACKWARD else ()
                made = self.receipt(self.liar, kind, microbatch, step=step, attempt=attempt, inputs=inputs)
                lives = epoch.lives[self.liar.hotkey]
                life = life_of(epoch, self.liar, made, lives)
                if life is not None:
                    version = self.spec.weight_version(step, lives[life].joined)
                    found.append(made.model_copy(update={"version": version}))
        return found

    def gradient(self, step: int, microbatch: int) -> tuple[SignedHeader, ...]:
        """The input of a BACKWARD: the gradient of whom the next stage's work was given first."""
        given_to = self.run.current.steps[step].given.find((microbatch, 1), 0)
        assert given_to is not None
        sender = next(m.hotkey for m in self.run.members.values() if m.order == given_to.member)
        name = frame_name(1, Direction.BACKWARD, microbatch, step=step)
        return (named_input(self.spec, name, sender, self.liar.hotkey),)

    def close(self) -> None:
        """The first open step ends, without the hostile miner."""
        step = self.run.current.closed_steps
        self.driven.lose(self.liar)
        for mb in list(self.run.current.steps[step].microbatches):
            assume(all(place.miner != self.liar.hotkey for place in mb.places))
            if mb.ended is None:
                self.driven.run_ops(step, mb.index)
        assume(self.run.current.closed_steps == step + 1)
        for hotkey, lives in self.run.current.lives.items():
            member = self.run.members[hotkey]
            if member is not self.liar and lives[-1].next_step == step:
                self.driven.say(member, receipts=[self.driven.receipt(member, OpKind.STEP, step, 0)])
                self.driven.commit(member)
        self.driven.come_back(self.liar)

    def honest_merges(self) -> None:
        """All mergers but the hostile one merge, until every part is merged."""
        for _ in range(4):
            for stage, merge in enumerate(self.run.current.merges):
                for number, part in enumerate(merge.parts):
                    for hotkey in set(part.mergers) - {self.liar.hotkey, *part.results}:
                        if part.agreed is None:
                            self.driven.merge(self.run.members[hotkey], stage, number)
            self.driven.wait(self.run.deadlines.merge.seconds + 1)

    def sealed(self) -> SealedEpoch:
        """The epoch as a validator has it."""
        record = self.driven.seal()
        ranges = {m.hotkey: range(m.first_receipt, m.last_receipt + 1) for m in record.miners}
        given = {h: [r for r in self.taken[h] if r.seq in seqs] for h, seqs in ranges.items()}
        return SealedEpoch(self.spec, record, [plan for plan in self.plans if plan.epoch == 0], given)


@settings(
    max_examples=200,
    deadline=None,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.filter_too_much,
    ],
)
@given(
    pipeline=st.sampled_from(Pipeline),
    commit_every=st.integers(1, STEPS),
    training=st.lists(moves, max_size=8),
    merging=st.lists(moves, max_size=4),
    block=st.integers(0, 7),
)
def test_no_order_of_receipts_that_is_taken_breaks_the_record(
    monkeypatch: pytest.MonkeyPatch,
    pipeline: Pipeline,
    commit_every: int,
    training: list[Move],
    merging: list[Move],
    block: int,
) -> None:
    monkeypatch.setattr(all_receipts, "is_signed", lambda *signed: True)  # simulated hotkeys have no key
    monkeypatch.setattr(all_receipts, "false_commit", lambda *of: None)  # nor their miners weights
    door = HostileDoor(pipeline, commit_every)
    driven = door.driven
    for move in training:
        door.move(move)
    while door.run.phase is not Phase.MERGING:
        door.close()
    for member in driven.state.miners():
        if member is not door.liar:
            sizes = enumerate(door.run.part_bytes[member.stage])
            parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=size) for n, size in sizes)
            driven.say(member, reports=[Delta(epoch=0, parts=parts)])
    driven.wait(driven.state.deadlines.merge.seconds + 1)
    driven.draw_mergers(f"{block:064x}")
    for move in merging:
        door.move(move)
    door.honest_merges()
    sealed = door.sealed()
    faults = all_receipts.check_receipts(sealed)  # raises SealBroken where the record cannot be
    assert door.liar.hotkey not in {fault.hotkey for fault in faults}
