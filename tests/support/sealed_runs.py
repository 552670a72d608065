"""A run whose first epoch is sealed, which validators audit."""

from __future__ import annotations

from iota.protocol.frames import StoredObject
from iota.protocol.messages import (
    Delta,
    Ready,
    Reveal,
    Role,
)
from orchestrator.coordinator.member import Member
from tests.support.coordinators import Driven
from tests.support.orchestrators import make_spec


def sealed_run(upload_s: float = 0.0, line: float = 12.5e6, steps: int = 1) -> tuple[Driven, Member, Member]:
    """A run whose epoch 0 is sealed, its first miner, and a validator that may judge it.

    The miners have stored their pseudo-gradients after `upload_s`; `line` is the run's `audit.line`.
    """
    spec = make_spec(steps=steps, microbatches=2)
    audit = spec.audit.model_copy(update={"line": line})
    driven = Driven.training(spec.model_copy(update={"audit": audit}))
    for step in range(steps):
        for index in range(2):
            driven.run_microbatch(step, index)
    validator = driven.join(9, Role.VALIDATOR)
    driven.now += upload_s
    for member in driven.state.miners():
        sizes = driven.state.part_bytes[member.stage]
        parts = tuple(StoredObject(key=f"d/{n}", digest="1" * 64, size=s) for n, s in enumerate(sizes))
        driven.say(member, reports=[Delta(epoch=0, parts=parts)])
    driven.draw_mergers()
    driven.merge_all()
    for member in driven.state.miners():
        driven.say(member, reports=[Ready(epoch=1, digest="3" * 64)])
    driven.wait(0.0, block=driven.state.head.block + 1)
    assert driven.state.epochs[0].seal is not None
    driven.say(validator, reports=[Reveal(epoch=0, link="1" * 64)])
    return driven, driven.state.miners()[0], validator
