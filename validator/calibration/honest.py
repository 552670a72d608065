"""An honest replay of a segment of all stages: of what a leading one sent, or as the leading one itself."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from iota.codec.wire_dtype import payload_tensor
from iota.compute.engine import Engine
from iota.compute.names import Microbatch
from iota.compute.output import DeviceOutput
from iota.compute.state import StageState
from iota.compute.tokens import Tokens
from iota.protocol.receipts import OpKind
from iota.spec import RunSpec

Name = tuple[int, int, int, OpKind]
"""(step, microbatch, stage, kind) of an op; a STEP's microbatch is 0."""


@dataclass
class Honest:
    """What an honest replay gave."""

    device: str = ""
    """Its device class."""
    payloads: dict[Name, bytes] = field(default_factory=dict)
    """Of the ops that send something."""
    numbers: dict[Name, float] = field(default_factory=dict)
    """Loss of each LOSS, gradient norm of each STEP."""
    states: dict[tuple[int, int], StageState] = field(default_factory=dict)
    """(steps, stage) -> state after so many steps."""


class Segment:
    """A segment of a run of at least two stages that starts from `starts`, one state a stage.

    Args:
        tokens: (step, microbatch) -> tokens.
        sent: what the leading replay sent, which is what every op gets as its input; empty for itself.
        kept: the numbers of steps after which states are kept.
    """

    def __init__(
        self,
        spec: RunSpec,
        starts: list[StageState],
        tokens: Callable[[int, int], Tokens],
        sent: Mapping[Name, bytes],
        kept: Collection[int],
        device: str = "cpu",
    ) -> None:
        self.found = Honest()
        self._spec, self._tokens, self._sent, self._kept = spec, tokens, sent, kept
        self._engines = [Engine(spec, stage, device=device) for stage in range(spec.layout.stages)]
        for engine, start in zip(self._engines, starts, strict=True):
            engine.load(start, version=0)

    def run(self, steps: int) -> Honest:
        """Run so many steps of the pipeline `sync`."""
        for step in range(steps):
            for index in range(self._spec.schedule.microbatches):
                self._microbatch(Microbatch(0, step, index))
            for stage, engine in enumerate(self._engines):
                self._step(engine, stage, step)
        return self.found

    def _microbatch(self, mb: Microbatch) -> None:
        tokens, version, last = self._tokens(mb.step, mb.index), mb.step, self._spec.last_stage
        stage_input = None
        for stage, engine in enumerate(self._engines[:-1]):
            made = engine.forward(mb, version, stage_input, tokens)
            stage_input = payload_tensor(self._took(made, mb, stage, OpKind.FORWARD))
        made = self._engines[last].loss(mb, version, stage_input, tokens)
        gradient = payload_tensor(self._took(made, mb, last, OpKind.LOSS))
        for stage in range(last - 1, -1, -1):
            made = self._engines[stage].backward(mb, version, gradient)
            if stage:
                gradient = payload_tensor(self._took(made, mb, stage, OpKind.BACKWARD))

    def _step(self, engine: Engine, stage: int, step: int) -> None:
        kept = step + 1 in self._kept
        before = engine.state().weights if kept else {}
        count, rate = self._spec.schedule.microbatches, self._spec.learning_rate(0, step)
        made = engine.step(step, count, rate).read().result()
        self.found.numbers[step, 0, stage, OpKind.STEP] = made.gradient_norm
        if kept:
            after = engine.state()
            self.found.states[step + 1, stage] = StageState(after.weights, after.moments, before)

    def _took(self, made: DeviceOutput, mb: Microbatch, stage: int, kind: OpKind) -> bytes:
        """Keep what an op gave. Returns what its neighbour gets: the leading replay's payload."""
        name = (mb.step, mb.index, stage, kind)
        output = made.read().result()
        assert output.payload is not None
        payload = self.found.payloads[name] = bytes(output.payload)
        if output.loss is not None:
            self.found.numbers[name] = output.loss
        return self._sent.get(name, payload)
