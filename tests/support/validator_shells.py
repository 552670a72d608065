"""A shell for the validator's core in virtual time: it holds every effect against the rules of filing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache

import numpy as np
from blake3 import blake3

from iota.identity.keys import Hotkey
from iota.protocol.events import Accusation, EvidenceMissed, EvidenceReady
from iota.protocol.frames import StoredObject
from iota.protocol.merkle import EMPTY
from iota.protocol.messages import (
    AuditKind,
    AuditsDone,
    EvidenceWanted,
    Outcome,
    Reveal,
    Verdict,
)
from iota.spec import AuditSpec
from tests.support.audited_miners import Noise
from tests.support.audited_runs import World
from tests.support.small_runs import small_run
from validator.core import effects, jobs
from validator.core.core import ValidatorCore
from validator.core.deliveries import Piece
from validator.core.facts import Accused, Done, Fact, Failed, RecordBroken, RecordGone, Tick, TransportFailed
from validator.core.flags import find_flags
from validator.core.history import History
from validator.core.links import LinkChain
from validator.core.merges import MergeAudits
from validator.core.pool import Pool
from validator.core.results import EvidenceMissing, MinerFault, Profile, ReplayMismatch
from validator.core.sealed import SealedEpoch
from validator.core.segments import Draws
from validator.core.tasks import drawn_tasks, owes

EPOCHS = 2
BLOCK_HASH = "cd" * 32
LINKS = LinkChain(b"\x01" * 32, EPOCHS)
ME = Hotkey.from_seed(b"\x08" * 32).ss58
"""The validator."""
OTHER = Hotkey.from_seed(b"\x07" * 32).ss58
"""Another validator."""
Name = tuple[int, str, str]
Answer = Callable[[jobs.Job], object]


@cache
def run() -> tuple[World, dict[int, SealedEpoch]]:
    """Two trained epochs, for all examples; nobody changes them."""
    audit = AuditSpec(commit_every=2, window_steps=1, extra_every=1, deadline_s=100.0)
    spec = small_run(
        schedule={"pipeline": "delayed", "epochs": EPOCHS}, optimizer={"state": "carry"}, audit=audit
    )
    world = World(spec, {1: Noise()})
    sealed = {}
    for epoch in range(EPOCHS):
        record = world.train(epoch)
        receipts = {miner.hotkey: world.of_epoch(epoch, miner) for miner in world.miners}
        sealed[epoch] = SealedEpoch(spec, record, world.plans[epoch], receipts)
    return world, sealed


def drawn(epoch: int, links: LinkChain = LINKS) -> set[Name]:
    """The audits that the draw of an epoch demands."""
    sealed = run()[1][epoch]
    link = links.link(epoch)
    merges = MergeAudits(sealed, BLOCK_HASH, link, lambda *filed: None, lambda text: None)
    of_merges = {(epoch, m, t.name) for at in merges.parts for m, t in merges.tasks(at)}
    draws = Draws(BLOCK_HASH, link, ME)
    of_miners = {(epoch, m, t.name) for m in sealed.miners for t in drawn_tasks(sealed, draws, m)}
    return of_miners | of_merges


def of_draw(names: Iterable[Name]) -> set[Name]:
    """Without the verdicts on who made the next base, which no draw of miners demands."""
    return {name for name in names if not name[2].startswith("base:")}


class Shell:
    """A shell whose database outlives its cores, and which holds every effect against the rules."""

    def __init__(self, links: LinkChain = LINKS) -> None:
        self.links = links
        self.now = 0.0
        self.kept: dict[Name, effects.FileVerdict] = {}
        """The database: verdicts by name, in order."""
        self.audited: set[int] = set()
        self.worked: set[int] = set()
        self.pooled: set[int] = set()
        """Epochs of which the verdicts of others are known."""
        self.asked: set[int] = set()
        """Epochs of which they were asked for, in vain or not."""
        self.others: dict[int, Pool] = {}
        """What others published, by epoch."""
        self.internal: set[tuple[int, str]] = set()
        """Audits that an error of the program ended."""
        self.events: list[Fact] = []
        self.stale: list[Fact] = []
        """Answers to jobs that are over."""
        self.restart()

    def restart(self) -> None:
        """Another process: it joins, and hears every event anew."""
        history = History(
            audited=set(self.audited),
            filed=set(self.kept),
            owing={
                (filed.epoch, filed.miner)
                for filed in self.kept.values()
                if owes(filed.task.kind, filed.result.outcome)
            },
            worked=set(self.worked),
            pooled=set(self.pooled),
        )
        self.core = ValidatorCore(run()[0].spec, ME, self.links, history)
        self.job: effects.Start | None = None
        self.stale.clear()
        self.wanted: set[tuple[int, str, Piece]] = set()
        self.said: Counter[Name] = Counter()
        """How often this process reported each verdict."""
        self.revealed: set[int] = set()
        self.at_hand: set[int] = set()
        """Epochs whose sealed record this process has."""
        self.drawable: set[int] = set()
        """Those of them whose block is final."""
        self.done: list[int] = []
        """Epochs of which this process said that its audits are done."""
        self.settled: dict[int, int] = {}
        """epoch -> accusations that it said to be done with."""
        self.ended = False
        for event in self.events:
            self.take(event)

    def on_event(self, event: Fact) -> None:
        self.events.append(event)
        self.take(event)

    def take(self, fact: Fact) -> None:
        for effect in self.core.take(fact, self.now):
            self._perform(effect)

    def answer(self, answer: object) -> None:
        """End the job that runs; an exception is the reason why it has no answer."""
        assert self.job is not None
        number, job, self.job = self.job.number, self.job.job, None
        if isinstance(job, jobs.FetchRecord) and (
            isinstance(answer, SealedEpoch) or (isinstance(answer, RecordBroken) and answer.miners)
        ):
            self.at_hand.add(job.epoch)
        if isinstance(job, jobs.AwaitBlock):
            self.drawable |= self.at_hand
        fact = Failed(number, answer) if isinstance(answer, Exception) else Done(number, answer)
        self.stale.append(fact)
        self.take(fact)

    def accuse(
        self,
        seq: int,
        *,
        epoch: int = 0,
        stage: int = 0,
        audit: AuditKind = AuditKind.OP,
        outcome: Outcome = Outcome.FAIL,
        author: str = OTHER,
        signed: bool = True,
    ) -> None:
        """Another validator accuses the miner of a stage."""
        verdict = Verdict(
            epoch=epoch,
            miner=run()[0].miners[stage].hotkey,
            audit=audit,
            outcome=outcome,
            seq=seq,
            profile="exact",
        )
        self.on_event(Accused(Accusation(validator=author, verdict=verdict), signed))

    def deliver(self, key: tuple[int, str, Piece]) -> None:
        """The evidence (epoch, miner, piece) comes."""
        epoch, miner, piece = key
        digest = blake3(repr(key).encode()).hexdigest()
        stored = StoredObject(
            key=f"audit/{epoch}/{miner}/{piece.item}/{piece.version}", digest=digest, size=1
        )
        self.take(
            EvidenceReady(epoch=epoch, miner=miner, item=piece.item, version=piece.version, stored=stored)
        )

    def miss(self, key: tuple[int, str, Piece], *, live: bool = True, revoked: bool = False) -> None:
        """The evidence (epoch, miner, piece) did not come by its deadline."""
        epoch, miner, piece = key
        missed = EvidenceMissed(
            epoch=epoch,
            miner=miner,
            item=piece.item,
            version=piece.version,
            deadline=1.0,
            live=live,
            revoked=revoked,
        )
        self.take(missed)

    def wake(self) -> None:
        """Let the time pass at which the core asked to be woken."""
        assert self.core.wake_at is not None, "no wait without an end"
        self.now = max(self.now, self.core.wake_at)
        self.take(Tick())

    def _perform(self, effect: effects.Effect) -> None:
        assert not self.ended, "nothing follows the end"
        match effect:
            case effects.Start():
                assert self.job is None, "one job at a time"
                self.job = effect
            case effects.Stop():
                assert self.job is not None
                self.stale.append(Done(self.job.number, None))
                self.job = None
            case effects.FileVerdict():
                name = (effect.epoch, effect.miner, effect.task.name)
                assert name not in self.kept, "a verdict is filed once, over all processes"
                assert effect.epoch in self.revealed, "no verdict before the link"
                self.kept[name] = effect
                self.said[name] += 1
            case effects.RepeatVerdicts():
                self.said.update(name for name in self.kept if name[0] == effect.epoch)
            case effects.KeepWork():
                self.worked |= {work.epoch for work in effect.work}
            case effects.KeepPool():
                assert effect.epoch not in self.pooled
                self.asked.add(effect.epoch)
                if effect.pool is not None and effect.pool.complete:
                    self.pooled.add(effect.epoch)
            case effects.KeepAudited():
                self.audited.add(effect.epoch)
            case effects.InternalError():
                self.internal.add((effect.epoch, effect.what))
            case effects.Say(report=Reveal() as reveal):
                assert reveal.link == self.links.link(reveal.epoch)
                assert reveal.epoch in self.drawable | self.audited, "no link without record and block"
                self.revealed.add(reveal.epoch)
            case effects.Say(report=EvidenceWanted() as wanted):
                key = (wanted.epoch, wanted.miner, Piece(wanted.item, wanted.version))
                assert key not in self.wanted, "each piece is asked for once"
                assert wanted.epoch in self.revealed
                self.wanted.add(key)
            case effects.Say(report=AuditsDone() as done):
                self._check_done(done.epoch)
                self.done.append(done.epoch)
                self.settled[done.epoch] = done.accusations
            case effects.End():
                self.ended = True
            case _:
                pass

    def _check_done(self, epoch: int) -> None:
        kept = {name for name in self.kept if name[0] == epoch}
        needed = drawn(epoch, self.links) if epoch in self.audited else {n for n in kept if n[2] == "seal"}
        assert needed
        assert needed <= kept, "every drawn audit has its verdict"
        assert all(self.said[name] for name in kept), "what is kept is said by this process as well"

    def good(self, job: jobs.Job) -> object:
        """An answer by which the audit goes on, and passes."""
        world, sealed = run()
        match job:
            case jobs.AwaitBlock():
                return BLOCK_HASH
            case jobs.FetchRecord():
                return sealed[job.epoch]
            case jobs.FindFlags():
                return find_flags(job.sealed, job.past)
            case jobs.FetchPast():
                return world.seal_of(job.epoch), sealed[job.epoch]
            case jobs.FetchVerdicts():
                return self.others.get(job.epoch, Pool({}, (), complete=True))
            case jobs.FetchFrame() | jobs.FetchSent():
                return b""
            case jobs.FetchTokens():
                return np.zeros((1, 1), dtype=np.int64)
            case jobs.LoadBase() | jobs.LoadSnapshot():
                return Profile("exact", exact=True)
            case jobs.HashDelta():
                miner = next(m for m in world.miners if m.stage == job.base.stage)
                parts = sealed[job.commit.epoch].delta(miner.hotkey) or ()
                return jobs.Encoded(tuple(part.digest for part in parts), EMPTY)
            case jobs.ReplayMerge(assign):
                parts = sealed[assign.epoch].record.merges[assign.stage].parts
                return jobs.Remade(parts[assign.part].digest, {})
            case jobs.RemakeBase(base):
                following = sealed[base.epoch].next_base(base.stage)
                return None if following is None else following.digest
            case jobs.ReplayWord():
                return False
            case _:
                return None

    def bad(self, job: jobs.Job, choice: int) -> object:
        """Another answer that the job may have, or the reason why it has none."""
        unforeseen = ZeroDivisionError("unforeseen")
        lost: list[object] = [EvidenceMissing("lost"), TransportFailed("nobody answers"), unforeseen]
        fault = MinerFault(run()[0].miners[0].hotkey, 1, "proof")
        mismatch = ReplayMismatch(1, "a", "b", "off")
        own: list[object]
        match job:
            case jobs.AwaitBlock() | jobs.Settle():
                return self.good(job)
            case jobs.FetchRecord():
                miners = run()[1][job.epoch].record.miners
                own = [
                    RecordBroken("broken", miners),
                    RecordBroken("nobody's", None),
                    RecordGone(),
                    unforeseen,
                ]
                return own[choice % len(own)]
            case jobs.ReplayWord():
                own = [True, *lost]
            case jobs.FetchVerdicts():
                own = [lost[1], Pool({}, (), complete=False), unforeseen]
            case jobs.FetchPast():
                own = lost
            case jobs.LoadBase() | jobs.LoadSnapshot():
                own = [Profile("declared", exact=False), fault, *lost]
            case jobs.CompareState():
                own = [mismatch, fault, *lost]
            case jobs.ReplayOp() | jobs.ReplayStep() | jobs.CompareRoots():
                own = [mismatch, *lost]
            case jobs.HashDelta():
                made = self.good(job)
                assert isinstance(made, jobs.Encoded)
                others = replace(made, parts=("00" * 32,) * len(made.parts)), replace(made, left="11" * 32)
                own = [*others, *lost]
            case jobs.ReplayMerge():
                own = [jobs.Remade("00" * 32, {}), *lost]
            case jobs.RemakeBase():
                own = ["00" * 32, *lost]
            case _:
                own = lost
        return own[choice % len(own)]


def opened(epoch: int = 0) -> Shell:
    """A shell that has received the seal of an epoch."""
    shell = Shell()
    shell.on_event(run()[0].seal_of(epoch))
    return shell


def work(shell: Shell, answer: Answer | None = None, until: Callable[[], bool] = lambda: False) -> None:
    """Answer jobs, and deliver each snapshot, until nothing runs or `until` holds."""
    while shell.job is not None and not until():
        shell.answer((answer or shell.good)(shell.job.job))
        for key in sorted(shell.wanted):
            if shell.job is None:
                shell.deliver(key)
