"""Words on NaN in the record of a run with real epochs."""

from __future__ import annotations

import copy

from blake3 import blake3

from iota.identity.signatures import signing_bytes
from iota.objects import FrameKey
from iota.protocol.frames import Direction, FrameName, FrameNotice
from iota.protocol.records import Word
from iota.protocol.words import WORD_DOMAIN, signed_word
from tests.support.audited_runs import World


def said(world: World, stage: int, step: int, *, by: int | None = None, microbatch: int = 1) -> World:
    """The same run, whose record has a word of the miner of `stage`, signed by that of stage `by`."""
    names = [
        FrameName(epoch=0, step=step, microbatch=microbatch, attempt=0, stage=at, direction=direction)
        for at, direction in ((stage - 1, Direction.FORWARD), (stage + 1, Direction.BACKWARD))
        if 0 <= at < len(world.miners)
        and not (direction is Direction.BACKWARD and world.spec.is_heldout(microbatch))
    ]
    data = [world.store[str(FrameKey(world.run, name))] for name in names]
    signer = world.miners[stage if by is None else by].key
    message = signing_bytes(WORD_DOMAIN, signed_word(world.run, 0, step, microbatch))
    word = Word(
        hotkey=world.miners[stage].hotkey,
        stage=stage,
        epoch=0,
        step=step,
        microbatch=microbatch,
        attempt=0,
        inputs=tuple(
            FrameNotice(name=name, digest=blake3(each).hexdigest(), size=len(each))
            for name, each in zip(names, data, strict=True)
        ),
        signature=signer.sign(message).hex(),
    )
    spoken = copy.copy(world)
    spoken.records = {0: world.records[0].model_copy(update={"words": (word,)})}
    return spoken
