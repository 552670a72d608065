"""Which op a replica runs next.

The order of ops is the order of floating-point sums, so it follows from the plan and never from timing:

- backward before forward, earlier steps before later ones;
- backwards of a step in ascending microbatch index, forwards in the plan's order;
- re-routed work takes its place by index among the remaining work, and does not wait for credit; nor does the
  first of the remaining work, whose credit others may have where it was re-routed or has to run again.
  The first microbatch of a step that has not ended can then always proceed, at every replica of its
  route, so that even a credit of one cannot deadlock.

An op is chosen when the device can take it, which may be before the results of those before it are on disk.
It counts as begun then. Two wait for results on disk: a BACKWARD for its FORWARD, and a STEP for all that it
counts, so that no bad value reaches the weights.

Held-out microbatches enter no sum. Their one op here runs when no forward of their step is left to begin, in
the order of their numbers among those whose input is there: none holds up anything else.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from iota.protocol.events import Drop, Reroute, StepClose
from iota.protocol.frames import Direction
from iota.protocol.plans import PlanShare
from iota.protocol.receipts import OpKey, OpKind
from iota.spec import Pipeline, RunSpec


@dataclass(frozen=True)
class Op:
    """One op of this replica. `microbatch` and `attempt` are 0 for STEP."""

    kind: OpKind
    epoch: int
    step: int
    version: int
    """Weight version that it uses."""
    microbatch: int = 0
    attempt: int = 0
    send_forward: bool = True
    """False if the next stage has this microbatch's activations already; BACKWARD then recomputes them."""
    counted: tuple[tuple[int, int], ...] = ()
    """STEP only: (microbatch, attempt) of the gradients in its sum, in order: A(t, s, r) of training.md."""
    learning_rate: float = 0.0

    @property
    def key(self) -> OpKey:
        """The key of the op's receipt."""
        return (self.epoch, self.step, self.microbatch, self.attempt, self.kind)


@dataclass
class ScheduledMicrobatch:
    """One microbatch at this replica."""

    index: int
    attempt: int
    send_forward: bool = True
    """As in `Op`."""
    input_ready: bool = False
    gradient_ready: bool = False
    forward_begun: bool = False
    backward_begun: bool = False
    forward_done: bool = False
    """Its result is on disk."""
    forward_receipted: bool = False
    """A receipt of a FORWARD names its input, also where the activations are gone since."""
    backward_done: bool = False
    """Of a held-out one: its only op here is done."""
    gone: bool = False
    """Dropped, or given to another replica."""

    heldout: bool = False

    @property
    def over(self) -> bool:
        """Whether no op of it is left to end here."""
        return self.gone or self.backward_done

    @property
    def left(self) -> bool:
        """Whether an op of it is left to begin here."""
        return not self.gone and not self.backward_begun

    @property
    def in_flight(self) -> bool:
        """Whether it uses credit: its forward has begun, its backward has not."""
        return self.forward_begun and self.left


@dataclass
class ScheduledStep:
    """This replica's microbatches of one step, by index, and the step's close once it is known."""

    microbatches: dict[int, ScheduledMicrobatch] = field(default_factory=dict)
    close: StepClose | None = None

    def waiting(self) -> Iterator[ScheduledMicrobatch]:
        """Microbatches of training whose backward is still to begin, by index."""
        return (entry for entry in self._open() if not entry.heldout)

    def heldout(self) -> Iterator[ScheduledMicrobatch]:
        """Held-out microbatches whose op is still to begin, by index."""
        return (entry for entry in self._open() if entry.heldout)

    def _open(self) -> Iterator[ScheduledMicrobatch]:
        return (entry for _, entry in sorted(self.microbatches.items()) if entry.left)


@dataclass
class Schedule:
    """The ops of one epoch at one replica. The caller keeps re-routes and drops of other epochs away."""

    spec: RunSpec
    stage: int
    hotkey: str
    epoch: int
    joined: int = 0
    """First step of this replica; its weights at version `joined` are the base."""
    version: int = 0
    """Newest weight version of this replica: STEP t makes version t + 1."""
    steps: dict[int, ScheduledStep] = field(default_factory=dict)

    _begun: int = 0
    """Newest weight version with those of STEPs that have begun."""

    def __post_init__(self) -> None:
        self.version = self._begun = max(self.version, self.joined)

    # ---- facts ---------------------------------------------------------------------------------

    def plan(self, share: PlanShare) -> list[int]:
        """Take this replica's share of a step's plan; returns the indices of its microbatches.

        None of another epoch, or of a step before this replica's first.
        """
        if share.epoch != self.epoch or share.step < self.joined:
            return []
        state = self.steps.setdefault(share.step, ScheduledStep())
        indices = [planned.microbatch for planned in share.microbatches]
        for index in indices:
            entry = state.microbatches.setdefault(index, self._entry_of(index, 0))
            entry.input_ready = entry.input_ready or self.stage == 0
        return indices

    def reroute(self, event: Reroute) -> bool:
        """Take a re-route at this stage. True if the microbatch is now this replica's."""
        if event.stage != self.stage:
            return False
        state = self.steps.setdefault(event.step, ScheduledStep())
        old = state.microbatches.get(event.microbatch)
        if event.miner != self.hotkey:
            if old is not None and not old.backward_done:
                old.gone = True
            return False
        if old is None or old.gone or old.attempt < event.attempt:
            entry = self._entry_of(event.microbatch, event.attempt)
            entry.send_forward, entry.input_ready = event.send_forward, self.stage == 0
            state.microbatches[event.microbatch] = entry
        return True

    def frame(self, step: int, index: int, direction: Direction) -> None:
        """A checked frame has arrived; ignored if no microbatch of this replica needs it."""
        entry = self.entry(step, index)
        if entry is None:
            return
        if direction is Direction.FORWARD:
            entry.input_ready = True
        else:
            entry.gradient_ready = True

    def lack(self, step: int, index: int, direction: Direction) -> None:
        """A frame that had arrived is no input any more; `frame` says when there is one again."""
        entry = self.entry(step, index)
        if entry is not None and direction is Direction.FORWARD:
            entry.input_ready = False
        elif entry is not None:
            entry.gradient_ready = False

    def recompute(self, entry: ScheduledMicrobatch) -> None:
        """A BACKWARD has no result, and the activations for it are gone: it recomputes them."""
        entry.send_forward = entry.forward_done = False

    def drop(self, event: Drop) -> bool:
        """Give up a microbatch unless its backward has run. True if that changed anything."""
        entry = self.entry(event.step, event.microbatch)
        if entry is None or entry.over:
            return False
        entry.gone = True
        return True

    def close(self, event: StepClose) -> None:
        """Take a step's close: every microbatch that counts here must run, re-routed or not.

        Normally all of them have run by then. A restarted replica, though, hears of a re-route before it
        has repeated the work that it had done before the re-route.
        """
        if event.epoch != self.epoch or event.step < self.version:
            return
        state = self.steps.setdefault(event.step, ScheduledStep())
        state.close = event
        counted = dict(event.counted)
        for index, entry in state.microbatches.items():
            entry.gone = index not in counted and not entry.backward_done
        for index, attempt in counted.items():
            ready = self.stage == 0
            state.microbatches.setdefault(index, ScheduledMicrobatch(index, attempt, input_ready=ready))

    def begin(self, op: Op) -> None:
        """An op is given to the device."""
        if op.kind is OpKind.STEP:
            self._begun = op.step + 1
        elif entry := self._entry_for(op):
            entry.forward_begun = True
            entry.backward_begun |= op.kind is not OpKind.FORWARD or entry.heldout

    def done(self, op: Op) -> None:
        """The result of an op that has begun is on disk."""
        if op.kind is OpKind.STEP:
            self.version = op.step + 1
            del self.steps[op.step]
        elif entry := self._entry_for(op):
            entry.forward_done = True
            entry.forward_receipted |= op.kind is OpKind.FORWARD
            entry.backward_done |= op.kind is not OpKind.FORWARD or entry.heldout

    def undo(self, op: Op) -> None:
        """An op that has begun has no result."""
        if entry := self._entry_for(op):
            entry.forward_begun, entry.backward_begun = entry.forward_done, entry.backward_done

    # ---- decision ------------------------------------------------------------------------------

    def next_op(self) -> Op | None:
        """The op to begin now; None if each waits for an input, a plan, a close or a result."""
        return self._next_step() or self._next_backward() or self._next_forward()

    def credit_used(self) -> int:
        """Microbatches between their forward and their backward; `ScheduleSpec.credit` bounds them."""
        return sum(entry.in_flight for state in self.steps.values() for entry in state.microbatches.values())

    def attempt(self, step: int, index: int) -> int:
        """The attempt of a microbatch that this replica has or had; 0 if it never had it."""
        entry = self.entry(step, index)
        return entry.attempt if entry is not None else 0

    def is_closed(self, step: int) -> bool:
        """Whether the step is closed or applied, so that no replica waits for its frames."""
        state = self.steps.get(step)
        return step < self.version or (state is not None and state.close is not None)

    def counted(self, step: int) -> list[ScheduledMicrobatch]:
        """The microbatches that a step which is closed and not applied counts here."""
        state = self.steps.get(step)
        if state is None or state.close is None:
            return []
        return [state.microbatches[index] for index, _ in state.close.counted]

    def entry(self, step: int, index: int) -> ScheduledMicrobatch | None:
        """A microbatch that this replica has or had in a step that is not applied."""
        state = self.steps.get(step)
        return state.microbatches.get(index) if state is not None else None

    @property
    def finished(self) -> bool:
        """Whether every step of the epoch is applied."""
        return self.version == self.spec.schedule.steps

    def _entry_of(self, index: int, attempt: int) -> ScheduledMicrobatch:
        return ScheduledMicrobatch(index, attempt, heldout=self.spec.is_heldout(index))

    def _entry_for(self, op: Op) -> ScheduledMicrobatch | None:
        """The microbatch of an op, unless it was given away or has another attempt by now."""
        entry = self.entry(op.step, op.microbatch)
        return entry if entry is not None and entry.attempt == op.attempt else None

    def _next_step(self) -> Op | None:
        state = self.steps.get(self._begun)
        if state is None or state.close is None:
            return None
        counted = state.close.counted
        if not all(state.microbatches[index].backward_done for index, _ in counted):
            return None
        return Op(
            OpKind.STEP,
            self.epoch,
            self._begun,
            self._uses(self._begun),
            counted=counted,
            learning_rate=state.close.learning_rate,
        )

    def _next_backward(self) -> Op | None:
        if self.stage == self.spec.last_stage:
            return None
        for step in self._runnable():
            entry = next(self.steps[step].waiting(), None)
            if entry is None:
                continue
            ready = entry.forward_done or (entry.input_ready and not entry.send_forward)
            if ready and entry.gradient_ready:
                return self._op(OpKind.BACKWARD, step, entry)
        return None

    def _next_forward(self) -> Op | None:
        last = self.stage == self.spec.last_stage
        free = self.spec.schedule.credit - self.credit_used()
        first = True
        for step in self._runnable():
            for entry in self.steps[step].waiting():
                exempt, first = first or entry.attempt > 0, False
                if entry.forward_begun or not entry.send_forward:
                    continue
                if not entry.input_ready or (free <= 0 and not exempt):
                    return None
                return self._op(OpKind.LOSS if last else OpKind.FORWARD, step, entry)
            for entry in self.steps[step].heldout():
                if entry.input_ready:
                    return self._op(OpKind.EVAL if last else OpKind.FORWARD, step, entry)
        return None

    def _runnable(self) -> Iterator[int]:
        """Planned steps whose weights exist here, in order. `delayed` runs one step ahead of its STEP."""
        ahead = 1 if self.spec.schedule.pipeline is Pipeline.DELAYED else 0
        return (t for t in sorted(self.steps) if self._begun <= t <= self._begun + ahead)

    def _uses(self, step: int) -> int:
        return self.spec.weight_version(step, self.joined)

    def _op(self, kind: OpKind, step: int, entry: ScheduledMicrobatch) -> Op:
        return Op(
            kind,
            self.epoch,
            step,
            self._uses(step),
            microbatch=entry.index,
            attempt=entry.attempt,
            send_forward=entry.send_forward,
        )
