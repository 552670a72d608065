"""Which op a replica runs next. Pure: facts go in, the next op comes out.

Order decides every sum, so it follows from the plan and not from timing:

- backward before forward, earlier steps before later ones;
- backwards of a step in ascending microbatch index, forwards in the plan's order;
- work that was re-routed here joins at its index among what is still to be done, and does not
  wait for credit: the first microbatch of a step that has not ended can always go on, at every
  replica of its route, so nothing deadlocks even at a credit of one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from iota.protocol.events import Drop, Plan, Reroute, StepClose
from iota.protocol.messages import Direction
from iota.spec import Pipeline, RunSpec


class Action(StrEnum):
    FORWARD = "forward"
    LOSS = "loss"
    BACKWARD = "backward"
    STEP = "step"


@dataclass(frozen=True)
class Op:
    """The next op. STEP has no microbatch; `counted` is then A(t, s, r), in order."""

    action: Action
    epoch: int
    step: int
    version: int
    microbatch: int = 0
    attempt: int = 0
    send_forward: bool = True
    counted: tuple[tuple[int, int], ...] = ()
    learning_rate: float = 0.0


@dataclass
class Task:
    """One microbatch at this replica."""

    index: int
    attempt: int
    send_forward: bool = True
    input_ready: bool = False
    gradient_ready: bool = False
    forward_done: bool = False
    backward_done: bool = False
    gone: bool = False
    """Dropped, or given to another replica."""

    @property
    def in_flight(self) -> bool:
        return self.forward_done and not self.backward_done and not self.gone


@dataclass
class StepTasks:
    tasks: dict[int, Task] = field(default_factory=dict)
    close: StepClose | None = None

    def waiting(self) -> Iterator[Task]:
        """Tasks whose backward is still to come, in order."""
        return (self.tasks[i] for i in sorted(self.tasks) if not self._over(self.tasks[i]))

    @staticmethod
    def _over(task: Task) -> bool:
        return task.gone or task.backward_done


@dataclass
class Schedule:
    """The ops of one epoch at one replica."""

    spec: RunSpec
    stage: int
    hotkey: str
    epoch: int
    joined: int = 0
    """Step at which this replica's version is the base."""
    version: int = 0
    """Newest weight version here: STEP t makes version t + 1."""
    steps: dict[int, StepTasks] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version = max(self.version, self.joined)

    # ---- facts ---------------------------------------------------------------------------------

    def plan(self, plan: Plan) -> list[int]:
        """Take a step's plan; the microbatches that are this replica's."""
        if plan.epoch != self.epoch or plan.step < self.joined:
            return []
        state = self.steps.setdefault(plan.step, StepTasks())
        mine = [i for i in range(len(plan.routes)) if plan.miner(i, self.stage) == self.hotkey]
        for index in mine:
            task = state.tasks.setdefault(index, Task(index, 0))
            task.input_ready = task.input_ready or self.stage == 0
        return mine

    def reroute(self, event: Reroute) -> bool:
        """Take over a microbatch, or be relieved of it. True if it is now this replica's."""
        if event.epoch != self.epoch or event.stage != self.stage:
            return False
        state = self.steps.setdefault(event.step, StepTasks())
        old = state.tasks.get(event.microbatch)
        if event.miner != self.hotkey:
            if old is not None and not old.backward_done:
                old.gone = True
            return False
        if old is None or old.gone or old.attempt < event.attempt:
            state.tasks[event.microbatch] = Task(
                event.microbatch,
                event.attempt,
                send_forward=event.send_forward,
                input_ready=self.stage == 0,
            )
        return True

    def frame(self, step: int, index: int, direction: Direction) -> bool:
        """A checked frame is at hand. True if an open task of this replica wants it."""
        state = self.steps.get(step)
        task = state.tasks.get(index) if state else None
        if task is None or task.backward_done:
            return False
        if direction is Direction.FORWARD:
            task.input_ready = True
        else:
            task.gradient_ready = True
        return not task.gone

    def drop(self, event: Drop) -> bool:
        """Forget a microbatch unless its backward has run. True if there was something to forget."""
        state = self.steps.get(event.step)
        task = state.tasks.get(event.microbatch) if state and event.epoch == self.epoch else None
        if task is None or task.backward_done or task.gone:
            return False
        task.gone = True
        return True

    def close(self, event: StepClose) -> None:
        """Take a step's close: what counts here has to be run, whatever became of it since.

        All of it has been run by then, except in a replica that started again: it hears of a
        re-route before it has run again what it had run before that.
        """
        if event.epoch != self.epoch or event.step < self.version:
            return
        state = self.steps.setdefault(event.step, StepTasks())
        state.close = event
        counted = {c.microbatch: c.attempt for c in event.counted}
        for index, task in state.tasks.items():
            task.gone = index not in counted and not task.backward_done
        for index, attempt in counted.items():
            ready = self.stage == 0
            state.tasks.setdefault(index, Task(index, attempt, input_ready=ready))

    def done(self, op: Op) -> None:
        """An op has ended; its result is on disk."""
        state = self.steps[op.step]
        if op.action is Action.STEP:
            self.version = op.step + 1
            del self.steps[op.step]
            return
        task = state.tasks.get(op.microbatch)
        if task is None or task.attempt != op.attempt:
            return
        task.forward_done = True
        if op.action is not Action.FORWARD:
            task.backward_done = True

    # ---- decision ------------------------------------------------------------------------------

    def next_op(self) -> Op | None:
        """The op to run now, or None when every possible one waits for news."""
        return self._next_step() or self._next_backward() or self._next_forward()

    def credit_used(self) -> int:
        return sum(task.in_flight for state in self.steps.values() for task in state.tasks.values())

    def attempt(self, step: int, index: int) -> int:
        """The attempt of a microbatch that this replica has or had; 0 where it never had one."""
        task = self.steps.get(step, StepTasks()).tasks.get(index)
        return task.attempt if task is not None else 0

    def is_closed(self, step: int) -> bool:
        """Whether the step is closed or applied: nobody waits for its frames."""
        state = self.steps.get(step)
        return step < self.version or (state is not None and state.close is not None)

    @property
    def finished(self) -> bool:
        """All steps of the epoch are applied."""
        return self.version == self.spec.schedule.steps

    def _next_step(self) -> Op | None:
        state = self.steps.get(self.version)
        if state is None or state.close is None:
            return None
        if not all(state.tasks[c.microbatch].backward_done for c in state.close.counted):
            return None
        counted = tuple((c.microbatch, c.attempt) for c in state.close.counted)
        return Op(
            Action.STEP,
            self.epoch,
            self.version,
            self._uses(self.version),
            counted=counted,
            learning_rate=state.close.learning_rate,
        )

    def _next_backward(self) -> Op | None:
        if self.stage == self.spec.last_stage:
            return None
        for step in self._runnable():
            task = next(self.steps[step].waiting(), None)
            if task is None:
                continue
            ready = task.forward_done or (task.input_ready and not task.send_forward)
            if ready and task.gradient_ready:
                return self._op(Action.BACKWARD, step, task)
        return None

    def _next_forward(self) -> Op | None:
        last = self.stage == self.spec.last_stage
        free = self.spec.schedule.credit - self.credit_used()
        for step in self._runnable():
            for task in self.steps[step].waiting():
                if task.forward_done or not task.send_forward:
                    continue
                if not task.input_ready or (free <= 0 and task.attempt == 0):
                    return None
                return self._op(Action.LOSS if last else Action.FORWARD, step, task)
        return None

    def _runnable(self) -> Iterator[int]:
        """Planned steps whose weights exist here, in order."""
        ahead = 1 if self.spec.schedule.pipeline is Pipeline.DELAYED else 0
        return (t for t in sorted(self.steps) if self.version <= t <= self.version + ahead)

    def _uses(self, step: int) -> int:
        return self.spec.weight_version(step, self.joined)

    def _op(self, action: Action, step: int, task: Task) -> Op:
        return Op(
            action,
            self.epoch,
            step,
            self._uses(step),
            microbatch=task.index,
            attempt=task.attempt,
            send_forward=task.send_forward,
        )
