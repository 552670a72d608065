"""Which of a record's words on NaN their miners have signed: the orchestrator cannot make one up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from iota.identity.signatures import signing_bytes, verify
from iota.protocol.records import MAX_WORDS, MinerRecord, Word
from iota.protocol.words import WORD_DOMAIN, signed_word
from iota.spec import RunSpec


def signed_words(
    spec: RunSpec, epoch: int, miners: Mapping[str, MinerRecord], words: Iterable[Word]
) -> dict[str, tuple[Word, ...]]:
    """By hotkey the words of miners of the epoch, `MAX_WORDS` of each at the most, that only their last life
    can have said."""
    found: dict[str, tuple[Word, ...]] = {}
    for word in words:
        miner, said = miners.get(word.hotkey), found.get(word.hotkey, ())
        if miner is not None and len(said) < MAX_WORDS and _is_signed(spec, epoch, miner, word):
            found[word.hotkey] = (*said, word)
    return found


def _is_signed(spec: RunSpec, epoch: int, miner: MinerRecord, word: Word) -> bool:
    fits = (word.epoch, word.stage) == (epoch, miner.stage)
    known = _first_known(miner) <= word.step < spec.schedule.steps
    signed = signing_bytes(WORD_DOMAIN, signed_word(spec.id, word.epoch, word.step, word.microbatch))
    return fits and known and verify(signed, bytes.fromhex(word.signature), word.hotkey)


def _first_known(miner: MinerRecord) -> int:
    """The first step of which only the last life can have spoken: an earlier one may have begun its last."""
    return miner.lives[-1].joined + (len(miner.lives) > 1)
