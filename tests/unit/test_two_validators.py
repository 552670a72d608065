"""Two honest validators, one of which joined late, beside one that lies: they set the same weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from iota.identity.keys import Hotkey
from iota.protocol.events import Accusation, AuditsClosed
from iota.protocol.messages import AuditKind, Outcome, Verdict
from tests.support.validator_shells import BLOCK_HASH, EPOCHS, Shell, run
from validator.audits.budget import Budget
from validator.audits.verdicts import VerdictSigner
from validator.core import effects, jobs
from validator.core.effects import FileVerdict
from validator.core.facts import Accused, TransportFailed
from validator.core.links import LinkChain
from validator.core.pool import Judgement, Pool
from validator.core.results import ReplayMismatch, Result
from validator.core.segments import Draws
from validator.core.tasks import AuditTask, drawn_tasks
from validator.database import Database
from validator.weights.scoreboard import Scoreboard

NOISY = 1
"""The stage whose miner cheats."""


class Board:
    """The public verdicts of a run."""

    def __init__(self) -> None:
        self.filed: list[tuple[str, Verdict]] = []
        self.links: dict[int, dict[str, str]] = {epoch: {} for epoch in range(EPOCHS)}

    def pool(self, epoch: int, reader: str) -> Pool:
        judgements = (Judgement.of(a, v) for a, v in self.filed if v.epoch == epoch and a != reader)
        links = {v: link for v, link in self.links[epoch].items() if v != reader}
        return Pool(links, tuple(judgements), complete=True)


class Validator(Shell):
    """A shell with a real database and scoreboard, whose replays find the noise of one miner.

    Args:
        blind: in which epoch it cannot fetch the evidence of the last stage.
    """

    def __init__(self, number: int, board: Board, folder: Path, blind: int | None = None) -> None:
        self.key = Hotkey.from_seed(bytes([number]) * 32)
        self.board, self.blind = board, blind
        spec, links = run()[0].spec, LinkChain(bytes([number]) * 32, EPOCHS)
        self.sign = VerdictSigner(spec.id, self.key)
        self.database = Database(folder / str(number), spec.id, self.key.ss58)
        self.scoreboard = Scoreboard(
            spec, self.key.ss58, links, self.database, Budget(1.0, cpu=lambda: 0.0), folder / str(number)
        )
        super().__init__(links)

    def _perform(self, effect: effects.Effect) -> None:
        super()._perform(effect)
        match effect:
            case effects.FileVerdict():
                self.board.filed.append(
                    (self.key.ss58, self.database.keep(effect.task.name, self.sign(effect)))
                )
            case effects.KeepDraw():
                self.database.scores.keep_draw(effect.epoch, effect.block_hash)
                if effect.epoch in self.revealed:
                    self.board.links[effect.epoch][self.key.ss58] = self.links.link(effect.epoch)
            case effects.KeepWork():
                self.database.scores.keep_work(effect.work)
            case effects.KeepAudited():
                self.database.scores.finish(effect.epoch)
            case effects.KeepPool():
                self.database.scores.keep_pool(effect.epoch, effect.pool)

    def good(self, job: jobs.Job) -> object:
        if isinstance(job, jobs.FetchVerdicts):
            return self.board.pool(job.epoch, self.key.ss58)
        if isinstance(job, jobs.ReplayOp | jobs.ReplayStep) and job.receipt.stage == NOISY:
            return ReplayMismatch(job.receipt.seq, "a", "b", "another output")
        last = run()[0].spec.last_stage
        if (
            isinstance(job, jobs.FetchTokens)
            and job.receipt.epoch == self.blind
            and job.receipt.stage == last
        ):
            return TransportFailed("nobody answers")
        return super().good(job)

    def work(self) -> None:
        """Do everything that can be done now; miners deliver each snapshot."""
        while self.job is not None:
            self.answer(self.good(self.job.job))
            for key in sorted(self.wanted):
                if self.job is None:
                    self.deliver(key)

    def hear(self) -> None:
        """The accusations of others that it was not told of yet."""
        for author, verdict in self.board.filed:
            told = {id(event.accusation.verdict) for event in self.events if isinstance(event, Accused)}
            concerns = author != self.key.ss58 and verdict.epoch in self.revealed
            if concerns and verdict.accuses and id(verdict) not in told:
                self.on_event(Accused(Accusation(validator=author, verdict=verdict), signed=True))


class Liar:
    """Passes its drawn audits unseen, those of the cheat too, and fails the honest miners."""

    def __init__(self, number: int, board: Board) -> None:
        self.key, self.board = Hotkey.from_seed(bytes([number]) * 32), board
        self.links = LinkChain(bytes([number]) * 32, EPOCHS)
        self.sign = VerdictSigner(run()[0].spec.id, self.key)

    def file(self, epoch: int) -> None:
        sealed = run()[1][epoch]
        self.board.links[epoch][self.key.ss58] = self.links.link(epoch)
        for hotkey, miner in sealed.miners.items():
            draws = Draws(BLOCK_HASH, self.links.link(epoch), self.key.ss58)
            tasks = drawn_tasks(sealed, draws, hotkey)
            for task in tasks:
                honest = miner.stage != NOISY
                self._say(epoch, hotkey, task, Outcome.FAIL if honest else Outcome.PASS)

    def _say(self, epoch: int, miner: str, task: AuditTask, outcome: Outcome) -> None:
        filed = FileVerdict(epoch, miner, task, Result(outcome, task.seq, "exact"))
        self.board.filed.append((self.key.ss58, self.sign(filed)))


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def validators(tmp_path: Path, board: Board) -> Iterator[tuple[Validator, Validator]]:
    first, late = Validator(1, board, tmp_path, blind=0), Validator(2, board, tmp_path, blind=1)
    yield first, late
    first.database.close()
    late.database.close()


def test_both_weigh_the_honest_alike_to_the_bit_and_silence_the_liar(
    validators: tuple[Validator, Validator], board: Board
) -> None:
    first, late = validators
    liar = Liar(3, board)
    for epoch in range(EPOCHS):
        here = (first,) if epoch == 0 else (first, late)
        for validator in here:
            validator.on_event(run()[0].seal_of(epoch))
            validator.work()
        liar.file(epoch)
        for _ in range(2):  # what one finds when it examines is an accusation for the other
            for validator in here:
                validator.hear()
                validator.work()
        for validator in here:
            validator.on_event(AuditsClosed(epoch=epoch))
            validator.work()
    miners = {m.stage: m.hotkey for m in run()[0].miners}
    weights = [validator.scoreboard.weights() for validator in validators]
    assert weights[0] == weights[1]
    assert weights[0][miners[NOISY]] == 0
    assert all(weights[0][miners[stage]] > 0 for stage in miners if stage != NOISY)
    assert sum(weights[0].values()) == pytest.approx(1)
    for validator in validators:
        validator.scoreboard.explain()
        path = validator.scoreboard._folder / "scores.json"
        explained = json.loads(path.read_text())
        assert set(explained["silenced"]) == {liar.key.ss58}
        assert explained["miners"][miners[0]]["open"] == 0
        charged = explained["miners"][miners[NOISY]]["charged"]
        assert charged
        assert {v["outcome"] for v in charged} == {"fail"}


def test_what_one_could_not_decide_vests_by_the_other_s_pass(
    validators: tuple[Validator, Validator], board: Board
) -> None:
    first, second = validators
    first.blind = 1
    second.blind = None
    for validator in validators:
        validator.on_event(run()[0].seal_of(1))
        validator.work()
    last = run()[0].miners[2].hotkey
    undecided = {v.audit for a, v in board.filed if v.outcome is Outcome.INCONCLUSIVE}
    assert AuditKind.SEGMENT in undecided
    for validator in validators:
        validator.on_event(AuditsClosed(epoch=1))
        validator.work()
    weights = [validator.scoreboard.weights() for validator in validators]
    assert weights[0] == weights[1]
    assert weights[0][last] > 0
