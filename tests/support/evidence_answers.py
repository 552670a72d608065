"""How the miners of a `World` answer for evidence that a validator asks for."""

from __future__ import annotations

from blake3 import blake3

from iota.objects import EvidenceKey
from iota.protocol.events import EvidenceMissed, EvidenceReady
from iota.protocol.frames import StoredObject
from iota.protocol.messages import EvidenceWanted
from tests.support.audited_miners import Miner
from tests.support.audited_runs import World


def kept_frames(world: World, miner: Miner, step: int, epoch: int = 0) -> bytes:
    """What a miner has kept of a step, as it delivers it."""
    kept = world.kept[miner.hotkey].items()
    return b"".join(data for name, data in kept if (name.epoch, name.step) == (epoch, step))


def delivered(world: World, wanted: EvidenceWanted, data: bytes) -> EvidenceReady:
    """Store what a miner delivers; the event that tells of it."""
    key = str(EvidenceKey(world.run, wanted.epoch, wanted.miner, wanted.item, wanted.version))
    world.store[key] = data
    return EvidenceReady(
        epoch=wanted.epoch,
        miner=wanted.miner,
        item=wanted.item,
        version=wanted.version,
        stored=StoredObject(key=key, digest=blake3(data).hexdigest(), size=len(data)),
    )


def missed(wanted: EvidenceWanted) -> EvidenceMissed:
    """The event that tells that a miner did not deliver."""
    return EvidenceMissed(
        epoch=wanted.epoch,
        miner=wanted.miner,
        item=wanted.item,
        version=wanted.version,
        deadline=1.0,
        live=True,
    )
