"""Holds what the orchestrator told this miner of an epoch against the epoch's seal."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from iota.client.evidence_files import SealBook
from iota.client.orchestrator import OrchestratorClient, OrchestratorUnreachable, UntrustedAnswer
from iota.protocol.events import Acknowledgement, Delivered, Drop, EpochClose, Plan, Reroute, StepClose
from iota.protocol.evidence import Evidence, EvidenceKind, covers, fault
from iota.protocol.problems import Problem
from iota.protocol.receipts import Receipt
from iota.protocol.seals import STEP_DOMAIN, SealedPart, SignedClose, SignedRoot, SignedSeal
from miner.receipt_log import ReceiptLog

log = logging.getLogger(__name__)


class Told:
    """The orchestrator's signed statements to one miner, kept until the seal of their epoch was checked.

    A contradiction is written to the miner's data directory and logged; the miner goes on.
    """

    def __init__(self, book: SealBook, hotkey: str, log: ReceiptLog) -> None:
        self._book, self._hotkey, self._log = book, hotkey, log
        self._roots: dict[int, dict[int, SignedRoot]] = defaultdict(dict)
        """epoch -> step -> the root of the plan, whose signature `check_plan` has checked."""
        self._rates: dict[tuple[int, int], float] = {}
        """(epoch, step) -> learning rate of the plan."""
        self._closes: dict[int, dict[int, SignedClose]] = defaultdict(dict)
        self._relieved: Counter[int] = Counter()
        """epoch -> microbatches that re-routes took from this miner, or that were dropped. One that is taken
        from it, and that no other replica can do, is dropped."""

    def hear(self, delivered: Delivered) -> SignedSeal | None:
        """Keep a statement. Returns a seal that has come, which is then to be checked.

        Raises UntrustedAnswer for a step's close or a seal that the orchestrator has not signed, or a close
        with another learning rate than its plan.
        """
        event, signature = delivered.event, delivered.signature or ""
        match event:
            case Plan(share=share, proof=proof):
                self._rates[share.epoch, share.step] = share.learning_rate
                self._roots[share.epoch][share.step] = SignedRoot(
                    epoch=share.epoch,
                    step=share.step,
                    count=proof.count,
                    root=proof.root,
                    signature=signature,
                )
            case StepClose():
                self._hear_close(event, signature)
            case Reroute() if event.replaces == self._hotkey != event.miner:
                self._relieved[event.epoch] += 1
            case Drop():
                self._relieved[event.epoch] += 1
            case EpochClose():
                if not signature:
                    raise UntrustedAnswer(f"the seal of epoch {event.epoch} has no signature")
                signed = SignedSeal(seal=event, signature=signature)
                self._book.take(signed)
                return signed
            case _:
                pass
        return None

    def _hear_close(self, event: StepClose, signature: str) -> None:
        what = f"the close of epoch {event.epoch} step {event.step}"
        if not signature:
            raise UntrustedAnswer(f"{what} has no signature")
        close = SignedClose.of(self._hotkey, event, signature)
        if not self._book.check(STEP_DOMAIN, close.payload(self._book.run), signature):
            raise UntrustedAnswer(f"{what} is not signed by {self._book.orchestrator}")
        if self._rates.get((event.epoch, event.step), event.learning_rate) != event.learning_rate:
            raise UntrustedAnswer(f"{what} has another learning rate than its plan")
        self._closes[event.epoch][event.step] = close

    async def check(
        self, client: OrchestratorClient, signed: SignedSeal, acknowledged: Mapping[int, Acknowledgement]
    ) -> None:
        """Fetch this miner's part of a sealed record, and compare. `acknowledged` is by sealed epochs."""
        epoch = signed.seal.epoch
        try:
            await asyncio.to_thread(self._book.take, await client.seal(epoch))
            part = await client.sealed_part(epoch, self._hotkey)
            if not part.is_of(signed.seal):
                raise UntrustedAnswer("it is not under the seal")
        except (Problem, OrchestratorUnreachable, UntrustedAnswer) as error:
            if self._closes.get(epoch) or self._roots.get(epoch):
                log.error("this miner's part of the record of epoch %d cannot be checked: %s", epoch, error)
            return
        finally:
            roots, closes = self._roots.pop(epoch, {}), self._closes.pop(epoch, {})
            whole = 0 in roots  # else the epoch began before this process, or this life
            relieved = self._relieved.pop(epoch, 0)
            self._rates = {at: rate for at, rate in self._rates.items() if at[0] > epoch}
        receipts = await asyncio.to_thread(self._log.since, epoch)
        said = max((key for key in acknowledged if key <= epoch), default=None)
        stored = None if said is None else acknowledged[said]
        found = [
            *self._differing(signed, part, roots.values(), closes.values()),
            *self._left_out(signed, part, stored, receipts),
        ]
        try:
            for evidence in found:
                await asyncio.to_thread(self._book.accuse, evidence)
        except OSError as error:
            log.error("evidence against the orchestrator cannot be written: %s", error)
        whole = whole and [life.joined for life in part.part.miner.lives] == [0]
        if whole and part.part.miner.withdrawn > relieved:
            log.warning(
                "the record of epoch %d has %d microbatches taken from this miner, which heard of %d",
                epoch, part.part.miner.withdrawn, relieved,
            )  # fmt: skip

    @property
    def accusations(self) -> int:
        """Number of contradictions that were ever written."""
        return self._book.accusations

    def _differing(
        self,
        signed: SignedSeal,
        part: SealedPart,
        roots: Iterable[SignedRoot],
        closes: Iterable[SignedClose],
    ) -> list[Evidence]:
        """At most one contradiction of each kind."""
        sealed = part.part
        root = next((r for r in roots if sealed.plans[r.step : r.step + 1] != (r.root,)), None)
        close = next((c for c in closes if sealed.counted[c.step : c.step + 1] != (c.counted,)), None)
        found = [self._proven(EvidenceKind.TWO_PLANS, signed, part=part, root=root)] if root else []
        found += [self._proven(EvidenceKind.OTHER_COUNTED, signed, part=part, close=close)] if close else []
        return [evidence for evidence in found if evidence is not None]

    def _left_out(
        self,
        signed: SignedSeal,
        part: SealedPart,
        said: Acknowledgement | None,
        receipts: tuple[Receipt, ...],
    ) -> list[Evidence]:
        stored = tuple(r for r in receipts if said is not None and r.seq <= said.receipts)
        if covers(part, stored):
            return []
        kind = EvidenceKind.LEFT_OUT
        evidence = self._proven(kind, signed, part=part, acknowledged=said, receipts=stored)
        return [] if evidence is None else [evidence]

    def _proven(self, kind: EvidenceKind, signed: SignedSeal, **statements: object) -> Evidence | None:
        """The evidence, if it proves what it is about; else the log says why it does not."""
        evidence = Evidence.model_validate(
            {
                "kind": kind,
                "run": self._book.run,
                "orchestrator": self._book.orchestrator,
                "epoch": signed.seal.epoch,
                "seals": (signed,),
                **statements,
            }
        )
        if why := fault(evidence, self._book.check):
            log.error("epoch %d: the orchestrator's statements differ (%s): %s", evidence.epoch, kind, why)
            return None
        return evidence
