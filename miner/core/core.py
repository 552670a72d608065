"""The decisions of one replica life, from its join to the run's end or to the loss of its state."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from iota.objects import BaseKey, DeltaKey, EvidenceKey, FrameKey, MergedKey, parse_key
from iota.protocol.events import Admit, AuditsClosed, Event, LoadBase, MergeReady, RunEnd
from iota.protocol.messages import Delta, FrameMissing, Merged, Ready
from iota.spec import RunSpec
from iota.wire.expectation import Expectation
from iota.wire.frame import FrameHeader
from miner.core import effects, facts
from miner.core.duties import Duties
from miner.core.effects import LoadState
from miner.core.epoch import EpochTraining
from miner.core.inputs import can_come


@dataclass
class ReplicaCore:
    """Takes facts and gives effects. If the disk has a base, it is the life's first fact."""

    spec: RunSpec
    stage: int
    hotkey: str
    reads_tokens: bool
    """Whether ops of this stage use token ids (`Trainer.reads_tokens`)."""
    resumed: bool = False
    """Whether frames of an earlier process may lie on this disk: they are looked for."""
    base: facts.BaseHeld | None = None
    training: EpochTraining | None = None
    """The current epoch. It stays after its last step: until its merge is applied, or with overlap until the
    admission to the next one."""
    ended: str | None = None
    """Why the run has ended."""
    _making_base: bool = False
    """Whether events wait for a base."""
    _loading: LoadState | None = None
    """The start state that is being loaded."""
    _pending_merge: MergeReady | None = None
    """A merge that was announced before this replica committed to the last version of its epoch."""
    _pending_admit: Admit | None = None
    """With overlap: an admission that waits for that, or where it is to begin anew for the ops that run."""
    _merges: deque[MergeReady] = field(default_factory=deque)
    """With overlap: merges that are applied behind the training, the first one now."""
    _delta_of: int = -1
    """The newest epoch whose pseudo-gradient was given out as a duty, of the present life."""
    _closed: set[int] = field(default_factory=set)
    """With overlap: epochs whose audits are closed, and of which a restart may still need something."""

    def __post_init__(self) -> None:
        self.duties = Duties(self.stage, merged_late=self.spec.overlaps)

    @property
    def listening(self) -> bool:
        """False while later events must wait: for a base, for a state, or for the end of an epoch."""
        waits = self._loading or self._pending_merge or self._pending_admit
        return not self._making_base and waits is None

    def take(self, fact: facts.Fact) -> list[effects.Effect]:
        """The effects of `fact`, in the order in which the shell starts them."""
        answer = self._react(fact)
        if self.training is not None:
            anew = self._pending_admit is not None and not self._pending_admit.carries
            answer += [] if anew else self.training.go_on()
            if self.training.settled:
                answer += self._finish(self.training)
            elif anew:
                answer += self._leave(self.training)
        return answer

    def wants(self, effect: effects.Sending | effects.FetchFrame | effects.Duty) -> bool:
        """Whether the shell should still try an effect that takes several tries."""
        match effect:
            case effects.SendFrame():
                epoch = self._training_of(effect.frame.notice.name.epoch)
                return epoch is not None and epoch.wants_sent(effect)
            case effects.ResendFrame() | effects.SendAgain():
                epoch = self._training_of(effect.name.epoch)
                return epoch is not None and epoch.wants_sent(effect)
            case effects.FetchFrame():
                epoch = self._training_of(effect.notice.name.epoch)
                return epoch is not None and epoch.wants_fetched(effect.notice.name)
            case _:
                return self.duties.wants(effect)

    def expects(self, header: FrameHeader) -> Expectation:
        """What to think of a frame that somebody wants to push, by its header alone. In constant time."""
        if not can_come(self.spec, self.stage, header):
            return Expectation.WRONG
        now, _ = self.earliest_step()
        if header.name.epoch < now:
            return Expectation.OVER
        if self.training is None or header.name.epoch > now:
            return Expectation.EARLY
        return self.training.inputs.expects(header)

    def reads(self, fact: facts.FrameArrived) -> bool:
        """Whether a frame that has arrived is to be the input of its op, once the fact is taken."""
        epoch = self._training_of(fact.name.epoch)
        return epoch is not None and epoch.inputs.reads(fact)

    def earliest_step(self) -> tuple[int, int]:
        """(epoch, step) of the earliest step that is not applied here; epoch -1 before the first base."""
        epoch, step, _ = self.progress
        return epoch, step

    @property
    def idle(self) -> bool:
        """Whether steps are left to train and no op runs: the replica waits for others, or for the epoch."""
        if self.training is None:
            return self.base is not None
        return not self.training.finished and not self.training.working

    @property
    def state(self) -> str:
        """The replica's state in a few words, for the status."""
        if self.training is None:
            return "loading" if self.base is None else "ready"
        if self.training.finished:
            return self._awaited(self.training.epoch)
        return f"epoch {self.training.epoch} step {self.training.schedule.version}"

    @property
    def progress(self) -> tuple[int, int, int]:
        """(epoch, steps of it that are applied, microbatches in flight); epoch -1 before the first."""
        if self.training is None:
            return (-1 if self.base is None else self.base.epoch), 0, 0
        schedule = self.training.schedule
        return self.training.epoch, schedule.version, schedule.credit_used()

    def _react(self, fact: facts.Fact) -> list[effects.Effect]:
        match fact:
            case facts.Heard(event):
                return self._hear(event)
            case facts.BaseHeld():
                return self._hold(fact)
            case facts.StateLoaded():
                return self._train(fact)
            case facts.Committed():
                if epoch := self._training_of(fact.epoch):
                    epoch.committed(fact)
                return [effects.Say(receipts=True)]
            case facts.TokensRead():
                if epoch := self._training_of(fact.epoch):
                    epoch.tokens_read(fact)
                return []
            case facts.FrameArrived():
                if epoch := self._training_of(fact.name.epoch):
                    epoch.frame_arrived(fact)
                return []
            case facts.FramesSought():
                epoch = self._training_of(fact.names[0].epoch)
                return epoch.frames_sought(fact) if epoch else []
            case facts.FrameLost():
                epoch = self._training_of(fact.name.epoch)
                missing = effects.Say(reports=(FrameMissing(name=fact.name, reason=fact.reason),))
                return [missing, *(epoch.frame_lost(fact) if epoch else [])]
            case facts.OpLaunched():
                if epoch := self._training_of(fact.op.epoch):
                    epoch.op_launched(fact)
                return []
            case facts.OpDone():
                epoch = self._training_of(fact.op.epoch)
                return epoch.op_done(fact) if epoch else [effects.Say(receipts=True)]
            case facts.OpBad():
                epoch = self._training_of(fact.op.epoch)
                return epoch.op_bad(fact) if epoch else []
            case facts.FrameStored():
                if epoch := self._training_of(fact.notice.name.epoch):
                    epoch.frame_stored(fact)
                return [effects.Say(frames=(fact.notice,), receipts=True)]
            case facts.FrameNotStored():
                return [effects.Say(receipts=True)]
            case facts.ObjectsMissing():
                return [effect for key in fact.keys for effect in self._store_again(key)]
            case facts.DutyEnded():
                self.duties.end(fact.duty)
                if fact.report is None:
                    return []
                # A merged part counts with its receipt alone, a pseudo-gradient after the last COMMIT's.
                receipted = isinstance(fact.report, Merged | Delta)
                return [effects.Say(reports=(fact.report,), receipts=receipted)]
            case _:
                assert_never(fact)

    def _hear(self, event: Event) -> list[effects.Effect]:
        assert self.listening, "events wait while the core is not listening"
        answer: list[effects.Effect] = [*self.duties.on_event(event)]
        match event:
            case LoadBase():
                return answer + self._load_base(event)
            case Admit():
                return answer + self._admit(event)
            case MergeReady():
                return answer + self._merge_ready(event)
            case AuditsClosed():
                self._closed.add(event.epoch)
                return answer + self._forget(self.duties.admitted)
            case RunEnd():
                self.ended = event.reason
                return answer + self._forget(None)
            case _:
                return answer + (self.training.on_event(event) if self.training is not None else [])

    def _store_again(self, key: str) -> list[effects.Effect]:
        """What makes an announced object again, while the run still needs it."""
        match parse_key(key):
            case FrameKey(_, name):
                again = effects.SendAgain(name)
                return [again] if self.wants(again) else []
            case DeltaKey() | MergedKey() | BaseKey() | EvidenceKey() as named:
                return [*self.duties.again(named)]
            case _:
                return []

    # ---- bases -----------------------------------------------------------------------------------

    def _load_base(self, event: LoadBase) -> list[effects.Effect]:
        held = self.base
        if held is not None and held.epoch >= event.epoch:
            newer = self.spec.overlaps and held.epoch > event.epoch
            if newer or event.digest in (None, held.digest):
                return self._ready()
        self._making_base = True
        return [effects.FetchBase(event.epoch, event.digest, event.parts)]

    def _hold(self, fact: facts.BaseHeld) -> list[effects.Effect]:
        self.base = fact
        if self._merges and self._merges[0].epoch < fact.epoch:
            self._merges.popleft()
        else:
            self._making_base = False
        return self._ready() + self._apply_behind()

    def _merge_ready(self, event: MergeReady) -> list[effects.Effect]:
        if self.base is not None and self.base.epoch > event.epoch:
            return self._ready()
        newest = self._merges[-1].epoch + 1 if self._merges else self.base.epoch if self.base else None
        if newest != event.epoch:
            return []
        if self.spec.overlaps:
            self._merges.append(event)
            return self._apply_behind() if len(self._merges) == 1 else []
        epoch = self._training_of(event.epoch)
        if epoch is not None and not epoch.settled:
            self._pending_merge = event
            return []
        return self._apply(event)

    def _apply(self, event: MergeReady) -> list[effects.Effect]:
        trained = self.training is not None
        self._pending_merge = self.training = None
        self._making_base = True
        return [effects.ApplyMerge(event.epoch, event.parts, trained)]

    def _apply_behind(self) -> list[effects.Effect]:
        """With overlap a merge changes nothing of the training, and events do not wait for it."""
        if not self._merges:
            return []
        event = self._merges[0]
        return [effects.ApplyMerge(event.epoch, event.parts, trained=False)]

    # ---- epochs ----------------------------------------------------------------------------------

    def _admit(self, event: Admit) -> list[effects.Effect]:
        if self.base is None or not self._holds_start(self.base.epoch, event.epoch):
            return []  # of an epoch whose merge this replica has applied since
        if self.spec.overlaps and self.training is not None:
            self._pending_admit = event  # `take` goes on with it, perhaps at once
            return []
        return self._load(event)

    def _holds_start(self, held: int, epoch: int) -> bool:
        """Whether a replica whose newest base is `held` may begin `epoch`.

        With overlap the epoch's own merge may be applied before a restart that has to repeat the epoch.
        """
        return self.spec.anchor(epoch) <= held <= (epoch + 1 if self.spec.overlaps else epoch)

    def _load(self, event: Admit) -> list[effects.Effect]:
        self._pending_admit = self.training = None
        self._loading = LoadState(event.epoch, event.step, event.carries)
        return [self._loading, *self._forget(event.epoch)]

    def _train(self, fact: facts.StateLoaded) -> list[effects.Effect]:
        carried = self._loading is not None and self._loading.carries
        self._loading, self._delta_of = None, min(self._delta_of, fact.epoch - 1)
        self.training = EpochTraining(
            self.spec,
            self.stage,
            self.hotkey,
            fact.epoch,
            joined=fact.step,
            reads_tokens=self.reads_tokens,
            resumed=self.resumed,
        )
        answer = [*self.training.commit(fact.step)]
        if self.spec.overlaps and carried and fact.epoch > 0:
            answer += self._give_delta(fact.epoch - 1)  # an earlier process may not have stored it
        return answer

    def _finish(self, epoch: EpochTraining) -> list[effects.Effect]:
        """After the last COMMIT: store the pseudo-gradient, then go on with what waited for it."""
        answer = self._give_delta(epoch.epoch)
        if self._pending_merge is not None:
            answer += self._apply(self._pending_merge)
        return answer + self._leave(epoch)

    def _leave(self, epoch: EpochTraining) -> list[effects.Effect]:
        """Begin what this replica was admitted to, once no more receipts of the present training come."""
        return self._load(self._pending_admit) if self._pending_admit is not None and epoch.over else []

    def _give_delta(self, epoch: int) -> list[effects.Effect]:
        """The duty to store an epoch's pseudo-gradient, once, unless it is merged."""
        if self._delta_of >= epoch:
            return []
        self._delta_of = epoch
        duty = effects.StoreDelta(epoch)
        merged = self.base is None or self.base.epoch > epoch
        return [] if merged else [*self.duties.begin(duty)]

    def _forget(self, admitted: int | None) -> list[effects.Effect]:
        """Forget epochs whose audits are closed, and of which no restart needs anything; None: all of them.

        With overlap the admission to an epoch shows that the one before it was committed to, so that no
        restart goes back to the end of the second before it, whose start is made with the third.
        """
        late = self.spec.overlaps and admitted is not None
        gone = sorted(e for e in self._closed if not late or e <= (admitted or 0) - 3)
        self._closed.difference_update(gone)
        return [effects.ForgetEpoch(epoch) for epoch in gone]

    def _awaited(self, trained: int) -> str:
        """What a replica that has trained an epoch waits for, in a few words."""
        last = trained + 1 == self.spec.schedule.epochs
        needed = trained + 1 if last else self.spec.anchor(trained + 1)
        if self.base is not None and self.base.epoch < needed:
            return f"merging epoch {self.base.epoch}"
        return "ready" if last else f"waiting for epoch {trained + 1}"

    def _ready(self) -> list[effects.Effect]:
        held = self.base
        return [] if held is None else [effects.Say(reports=(Ready(epoch=held.epoch, digest=held.digest),))]

    def _training_of(self, epoch: int) -> EpochTraining | None:
        found = self.training
        return found if found is not None and found.epoch == epoch else None
