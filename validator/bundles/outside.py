"""What a bundle cannot show by itself: checked where its reader names a source for it, else assumed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from iota.chain import Chain
from iota.console.counts import counted
from iota.data import DirectoryReader
from iota.data.samples import drawn_sequences
from iota.protocol.messages import Outcome, Verdict
from iota.spec import RunSpec
from validator.audits.public_chain import PublicChain
from validator.bundles.archive import BundleRefused
from validator.bundles.form import Manifest, tokens_name
from validator.core.results import Result

Tokens = dict[tuple[int, int, int], npt.NDArray[np.integer]]
"""(epoch, step, microbatch) -> its token ids."""


@dataclass
class Repeated:
    """What came of a bundle."""

    manifest: Manifest
    checked: list[str] = field(default_factory=list)
    """What holds, in sentences."""
    faults: list[str] = field(default_factory=list)
    """What does not hold. With any, nothing is proven."""
    assumed: list[str] = field(default_factory=list)
    """What the file cannot show by itself."""
    result: Result | None = None
    """What the audit gives here; None where it could not be repeated."""

    @property
    def verdict(self) -> Verdict:
        """What the validator signed."""
        return self.manifest.verdict

    @property
    def confirmed(self) -> bool:
        """Whether everything holds and the audit comes out as the verdict says: the same first op fails."""
        found, said = self.result, self.verdict
        if found is None or self.faults or found.outcome is not said.outcome:
            return False
        return found.outcome is not Outcome.FAIL or found.seq == said.failed_seq


@dataclass(frozen=True)
class Outside:
    """What a reader knows besides the bundle; None is assumed to be as the bundle has it."""

    orchestrator: str | None = None
    """Hotkey of the run's orchestrator."""
    chain: Chain | None = None
    """Where the draw's block and the validator's commitment stand."""
    netuid: int = 0
    data: Path | None = None
    """Folder that `iota data prepare` wrote: the data set of the run."""

    def check_orchestrator(self, found: Repeated) -> None:
        """Raise BundleRefused for another orchestrator than the known one."""
        manifest = found.manifest
        if self.orchestrator is None:
            who = f"{manifest.orchestrator} is the orchestrator of run {manifest.run[:16]}"
            found.assumed.append(f"that {who}")
        elif self.orchestrator != manifest.orchestrator:
            raise BundleRefused(f"it is of orchestrator {manifest.orchestrator}, not {self.orchestrator}")

    async def check_draw(self, found: Repeated) -> None:
        """Whether the draw rests on the chain. Raises ChainError."""
        manifest, seal = found.manifest, found.manifest.seal.seal
        if self.chain is None:
            found.assumed += [
                f"that block {seal.block} of the chain has the hash {manifest.block_hash}",
                f"that {manifest.validator} committed the chain of its link before that block",
            ]
            return
        public = PublicChain(self.chain, self.netuid, manifest.run)
        block_hash = await public.block_hash(seal)
        if block_hash is None or block_hash.removeprefix("0x") != manifest.block_hash.removeprefix("0x"):
            found.faults.append(f"block {seal.block} has the hash {block_hash}, not {manifest.block_hash}")
        if (fault := await public.link_fault(seal, manifest.validator, manifest.link)) is not None:
            found.faults.append(f"{manifest.validator}: {fault}")
        if not found.faults:
            found.checked.append(
                "the block's hash and the committed chain of the link are those of the chain"
            )

    async def check_tokens(self, found: Repeated, spec: RunSpec, read: Tokens) -> None:
        """Whether token ids are those of the data set. Raises DataError."""
        if not read:
            return
        of_set = f"the data set {spec.data.manifest[:16]}"
        what = f"the token ids of {counted(len(read), 'microbatch')} are those of {of_set}"
        if self.data is None:
            found.assumed.append(f"that {what}")
            return
        false = await asyncio.to_thread(_false_tokens, spec, read, self.data)
        found.faults += [f"{name} are not the token ids of {of_set}" for name in false]
        if not false:
            found.checked.append(what)


def _false_tokens(spec: RunSpec, read: Tokens, data: Path) -> list[str]:
    """The members whose token ids are not those of the data set."""
    reader = DirectoryReader(data, spec.data.manifest)
    length = spec.data.sequence_length
    false = []
    for (epoch, step, index), given in sorted(read.items()):
        drawn = drawn_sequences(
            spec,
            epoch,
            step,
            index,
            count=reader.sequence_count(length),
            heldout_count=reader.heldout_count(length),
        )
        of = reader.heldout_tokens if drawn.heldout else reader.tokens
        if not np.array_equal(given, [of(number, length) for number in drawn.numbers]):
            false.append(tokens_name(epoch, step, index))
    return false
