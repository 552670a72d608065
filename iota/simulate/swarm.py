"""A swarm in virtual time: the real coordinator and intake, and miners with the real core."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from iota.objects import SettledKey
from iota.protocol.events import Event, MergeAssign, StepClose
from iota.protocol.frames import FrameName, StoredObject
from iota.protocol.messages import ExchangeRequest, JoinRequest
from iota.protocol.receipts import SignedHeader
from iota.simulate.clock import VirtualClock
from iota.simulate.device import VirtualDevice
from iota.simulate.duties import merged_part
from iota.simulate.links import Links
from iota.simulate.miner import VirtualMiner
from iota.simulate.names import digest, fake_hotkey
from iota.spec import RunSpec
from orchestrator.coordinator import (
    BaseMade,
    Coordinator,
    Entry,
    Finding,
    Limits,
    Lost,
    Member,
    Remerged,
    Resumed,
    Tick,
)
from orchestrator.coordinator.state import RunState
from orchestrator.intake import Intake

SILENCE_S: Final = 15.0
"""A member that has not been heard for this long is lost."""
BLOCK_S: Final = 12
"""Block time of the simulated chain, as on Bittensor."""
LIMITS: Final = Limits(first_s=20.0, merge_first_s=30.0, start_s=30.0)
"""Deadlines before there are measurements: well above the times that links and devices draw."""


class VirtualSwarm:
    """One run. Tests start and kill its miners and its orchestrator, and `run` lets time pass."""

    def __init__(
        self,
        spec: RunSpec,
        seed: int,
        *,
        latency_s: float = 0.2,
        nan_rate: float = 0.0,
        recording: float = 0.0,
        push_rate: float = 0.5,
        deny_rate: float = 0.0,
        lose_rate: float = 0.0,
    ) -> None:
        """`nan_rate` and `recording` are those of the miners' devices.

        `push_rate` is the share of frames that are pushed to their receivers, where these take them; the
        others are stored. `deny_rate` is the share of those that their receivers acknowledge and say that
        they cannot use, `lose_rate` that of those that they lose and say nothing.
        """
        self.spec, self.nan_rate, self.recording = spec, nan_rate, recording
        self.push_rate, self.deny_rate, self.lose_rate = push_rate, deny_rate, lose_rate
        self.rng = Random(seed)
        self.clock = VirtualClock()
        self.links = Links(self.rng, latency_s)
        self.entries: list[Entry] = []
        """The journal: all entries in order, from which a restart rebuilds the coordinator."""
        self.miners: dict[str, VirtualMiner] = {}
        self._last_heard: dict[str, float] = {}
        self.frames: dict[FrameName, SignedHeader] = {}
        """The headers of all frames, by name."""
        self.stored: set[FrameName] = set()
        """The frames that are in the store."""
        self._build()
        self._tick()

    @property
    def state(self) -> RunState:
        """The state of the coordinator, to assert on."""
        return self.coordinator.state

    @property
    def now(self) -> float:
        """Virtual time in seconds."""
        return self.clock.now

    def add_miner(self) -> VirtualMiner:
        """Start one more miner; the coordinator chooses its stage."""
        key = fake_hotkey(len(self.miners))
        miner = VirtualMiner(self, key, VirtualDevice(self.rng, self.nan_rate, recording=self.recording))
        self.miners[key] = miner
        miner.start()
        return miner

    def run(self, until: Callable[[], bool], *, limit_s: float) -> None:
        """Let time pass until `until` holds; raises AssertionError after `limit_s` virtual seconds."""
        done = self.clock.run(until, limit_s)
        assert done, f"not done after {limit_s} virtual seconds: {self.coordinator.status()}"

    def restart_orchestrator(self) -> None:
        """Kill the orchestrator and rebuild it from its journal; the rebuilt state must be equal."""
        before = self.coordinator
        before.take_woken()
        self._build()
        self.coordinator.take_woken()
        assert self.coordinator.state == before.state, "a replay of the journal gives another state"
        self.apply(Resumed(at=self.now))
        for miner in self.miners.values():
            if miner.alive:
                miner.poll()

    def _build(self) -> None:
        self.coordinator = Coordinator(self.spec, LIMITS)
        # A simulated hotkey has no key, so signatures are the one thing that is not checked.
        self.intake = Intake(self.coordinator, verify=lambda message, signature, key: True)
        for entry in self.entries:
            self.coordinator.apply(entry)

    # ---- requests of members -----------------------------------------------------------------------

    def join(self, key: str, request: JoinRequest) -> Member:
        """Join as the hotkey `key`; raises Problem where the intake refuses."""
        self.apply(self.intake.join(key, request, self.now))
        self._last_heard[key] = self.now
        return self.intake.member(key)

    def exchange(self, key: str, request: ExchangeRequest) -> None:
        """Deliver an exchange. Raises Problem where the intake refuses it, which fails the test."""
        self._note_alive(key)
        assert all(notice.name in self.stored for notice in request.frames if notice.kept is None)
        said = self.intake.exchange(key, request, self.now)
        if said is not None:
            self.apply(said)

    def news(self, key: str, cursor: int) -> tuple[list[tuple[int, Event]], int]:
        """The answer to an exchange: numbered events after `cursor`, and the number of stored receipts."""
        self._note_alive(key)
        return self.coordinator.events_after(key, cursor), self.intake.member(key).receipts

    def _note_alive(self, key: str) -> None:
        self._last_heard[key] = self.now
        back = self.intake.returned(key, self.now)
        if back is not None:
            self.apply(back)

    # ---- the coordinator ---------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """Journal and apply an entry, and wake the miners that it has events for."""
        self.entries.append(entry)
        self.coordinator.apply(entry)
        assert not self.state.incidents.internal, self.state.incidents.internal[0]
        for key in sorted(self.coordinator.take_woken()):
            if key in self.miners and self.miners[key].alive:
                self.miners[key].poll()
        for copy in self.coordinator.unread_copies(1):
            self.apply(copy.read(self.now, Finding.SOUND))

    def check_close(self, event: StepClose) -> None:
        """Assert that a step closes only when all of its microbatches have ended."""
        epoch = self.state.epochs.get(event.epoch)  # gone once its audits are closed
        if epoch is not None and event.step < len(epoch.steps):
            assert epoch.steps[event.step].open == 0, "a step closed early"

    def _tick(self) -> None:
        """Each virtual second: report silent members, and apply a `Tick` at a new block or a due deadline."""
        for key, miner in self.miners.items():
            member = self.coordinator.members[key]
            if miner.alive:
                self._last_heard[key] = self.now  # its regular exchange
            elif member.live and self.now > self._last_heard[key] + SILENCE_S:
                self.apply(Lost(at=self.now, hotkey=key))
        for assign in self.coordinator.disputed_parts():
            self._merge(assign)
        for base in self.coordinator.disputed_bases():
            true = digest("base", base.epoch, base.stage)
            parts = (StoredObject(key="base", digest=true, size=1),) if base.store else ()
            self.apply(BaseMade(at=self.now, epoch=base.epoch, stage=base.stage, digest=true, parts=parts))
        due = self.coordinator.next_deadline()
        if int(self.now) % BLOCK_S == 0 or (due is not None and due <= self.now):
            block = int(self.now) // BLOCK_S
            self.apply(Tick(at=self.now, block=block, block_hash=digest(block)))
        self.clock.later(1.0, self._tick)

    def _merge(self, assign: MergeAssign) -> None:
        """What the orchestrator makes of a part that its mergers did not settle."""
        stored = merged_part(self.spec, assign, "merged")
        key = str(SettledKey(self.spec.id, assign.epoch, assign.stage, assign.part, stored.digest))
        self.apply(
            Remerged(
                at=self.now,
                epoch=assign.epoch,
                stage=assign.stage,
                part=assign.part,
                stored=stored.model_copy(update={"key": key}),
                left_out={},
            )
        )
