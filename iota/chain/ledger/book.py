"""The ledger's state machine: the effect of each read and write at a given time.

It has no clock and no network: the time is an argument, and the sender has been verified. A write that
arrives while block n is the head goes into block n + 1, as on a chain, so that the sender cannot know the
hash of the block that will hold it.
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

from iota.chain.chain import (
    MAX_COMMITMENT_BYTES,
    Block,
    Commitment,
    EpochStatus,
    Neuron,
    Subnet,
    TxCode,
    TxMode,
    TxResult,
    WeightsRow,
)
from iota.chain.errors import BadInput
from iota.chain.inputs import endpoint_refusal
from iota.chain.ledger import rules
from iota.chain.ledger.clock import CHECKPOINT_BLOCKS, BlockClock, hash_of, hashes_after
from iota.chain.ledger.database import LedgerDatabase
from iota.chain.ledger.yuma import yuma
from iota.chain.weight_rules import check_weights, normalise
from iota.console.counts import counted
from iota.identity.keys import Hotkey
from iota.protocol.messages import Role

OWNER_UID = 0
"""Uid of the ledger's own key, which has the role of the subnet's owner: validators give the burn to it."""


class LedgerBook:
    """One ledger over one database. Call `advance` before each read; a write calls it itself."""

    def __init__(self, database: LedgerDatabase, now_s: float) -> None:
        self._db = database
        self.parameters = database.parameters
        self.clock = BlockClock(float(database.get("genesis_s")), self.parameters.block_time_s)
        self.key = Hotkey.from_seed(database.get("key_seed"))
        self._seed = bytes(database.get("hash_seed"))
        stored_head = int(database.get("head"))
        self._tip = database.checkpoint_before(stored_head)
        if not database.neurons():
            with database.transaction():
                database.put_neuron(OWNER_UID, self.key.ss58, self.key.ss58, 0.0, 0)
        self._advance_to(max(stored_head, self.clock.number(now_s)))

    # ---- time -------------------------------------------------------------------------------------

    def advance(self, now_s: float) -> int:
        """Apply the reveals and epochs until `now_s` (Unix seconds); returns the head's number."""
        return self._advance_to(self.clock.number(now_s))

    def _advance_to(self, number: int) -> int:
        last = self._tip[0]  # the head never goes back, though the machine's clock may
        if number <= last:
            return last
        tempo = self.parameters.tempo
        with self._db.transaction():
            # No write came since the last call, so of several epochs only the last has an effect.
            boundary = number // tempo * tempo
            if boundary > int(self._db.get("last_epoch_block")):
                self._reveal(boundary)
                self._run_epoch(boundary)
            self._reveal(number)
            tip = self._tip
            for tip in hashes_after(*self._tip, self._seed, number):
                if tip[0] % CHECKPOINT_BLOCKS == 0:
                    self._db.add_checkpoint(*tip)
            self._db.put("head", number)
        self._tip = tip
        return number

    def head(self) -> Block:
        """The newest block."""
        return self._block(*self._tip)

    def block(self, number: int) -> Block:
        """The block of that number.

        Raises:
            BadInput: the number is above the head's, or negative.
        """
        if not 0 <= number <= self._tip[0]:
            raise BadInput(f"block {number} has not come: the head is {self._tip[0]}")
        if number == self._tip[0]:
            return self.head()
        return self._block(number, hash_of(number, *self._db.checkpoint_before(number), self._seed))

    def _block(self, number: int, digest: bytes) -> Block:
        return Block(number, "0x" + digest.hex(), self.clock.start(number))

    # ---- reads ------------------------------------------------------------------------------------

    def subnet(self) -> Subnet:
        """The metagraph at the head."""
        p = self.parameters
        rows = self._db.neurons()
        permitted = self._permitted(rows)
        return Subnet(
            netuid=p.netuid,
            block=self.head(),
            tempo=p.tempo,
            owner_uid=OWNER_UID,
            neurons=tuple(replace(row, validator_permit=row.uid in permitted) for row in rows),
            max_uids=p.max_uids,
            weights_rate_limit=p.weights_rate_limit,
            commit_reveal=p.reveal_blocks > 0,
            weights_version=p.weights_version,
            activity_cutoff=p.activity_cutoff,
            reveal_tempos=math.ceil(p.reveal_blocks / p.tempo),
        )

    def weights(self) -> list[WeightsRow]:
        """The weights in force, by validator uid."""
        hotkeys = {row.uid: row.hotkey for row in self._db.neurons()}
        return [WeightsRow(uid, hotkeys[uid], block, row) for uid, (block, row) in self._db.weights().items()]

    def commitment(self, hotkey: str, at_block: int | None) -> Commitment | None:
        """The newest commitment of a hotkey, in block `at_block` or before; None where there is none."""
        found = self._db.commitment(hotkey, self._tip[0] + 1 if at_block is None else at_block)
        return None if found is None else Commitment(*found)

    def epoch_status(self, now_s: float) -> EpochStatus:
        """The position between two epochs; `now_s` is Unix seconds."""
        last = int(self._db.get("last_epoch_block"))
        following = (self._tip[0] // self.parameters.tempo + 1) * self.parameters.tempo
        return EpochStatus(
            netuid=self.parameters.netuid,
            block=self._tip[0],
            tempo=self.parameters.tempo,
            index=int(self._db.get("epochs")),
            last_epoch_block=last,
            next_epoch_block=following,
            seconds_remaining=max(0.0, self.clock.start(following) - now_s),
        )

    # ---- writes: each in one transaction that also stores the sender's nonce ------------------------

    def register(self, hotkey: str, role: Role, now_s: float, nonce: int) -> TxResult:
        """Give a hotkey a uid; a validator also gets the faucet's stake."""
        return self._write(now_s, nonce, lambda block: self._register(hotkey, role, block))

    def serve(self, hotkey: str, ip: str, port: int, now_s: float, nonce: int) -> TxResult:
        """Record the address of a neuron."""
        return self._write(now_s, nonce, lambda _: self._serve(hotkey, ip, port))

    def commit(self, hotkey: str, data: bytes, now_s: float, nonce: int) -> TxResult:
        """Record a commitment of a registered hotkey; earlier ones can still be read by block."""
        return self._write(now_s, nonce, lambda block: self._commit(hotkey, data, block))

    def set_weights(
        self, hotkey: str, weights: Mapping[int, int], version_key: int, now_s: float, nonce: int
    ) -> TxResult:
        """Set a validator's weights, in force at once or from their reveal on."""
        return self._write(now_s, nonce, lambda block: self._set_weights(hotkey, weights, version_key, block))

    def _write(self, now_s: float, nonce: int, act: Callable[[int], TxResult | None]) -> TxResult:
        block = self.advance(now_s) + 1
        with self._db.transaction():
            # Also for a refused write: replayed after a restart, it might succeed.
            self._db.put("nonce_fence", max(nonce, int(self._db.get("nonce_fence"))))
            refusal_or_result = act(block)
        return refusal_or_result or TxResult(True, TxCode.OK, None, "stored", block)

    def nonce_fence(self) -> int:
        """The highest nonce of all writes: after a restart, lower ones are refused as replays."""
        return int(self._db.get("nonce_fence"))

    def _register(self, hotkey: str, role: Role, block: int) -> TxResult | None:
        rows = self._db.neurons()
        if any(row.hotkey == hotkey for row in rows):
            return TxResult.refusal(
                TxCode.ALREADY_EXISTS, "HotKeyAlreadyRegisteredInSubNet", "this hotkey has a uid already"
            )
        uid: int | None = len(rows)
        if len(rows) >= self.parameters.max_uids:
            uid = rules.uid_to_prune(
                {row.uid: row.incentive + row.dividends for row in rows},
                {row.uid: row.registered_at for row in rows},
                block,
                self.parameters.immunity_blocks,
                OWNER_UID,
            )
        if uid is None:
            return TxResult.refusal(
                TxCode.LIMIT_EXCEEDED, "NoNeuronIdAvailable", "the subnet is full, and all in it are immune"
            )
        stake = self.parameters.faucet_stake if role is Role.VALIDATOR else 0.0
        self._db.put_neuron(uid, hotkey, hotkey, stake, block)
        return None

    def _serve(self, hotkey: str, ip: str, port: int) -> TxResult | None:
        row = self._row(hotkey)
        if row is None:
            return _not_registered()
        refusal = endpoint_refusal(ip, port)
        if refusal is None:
            self._db.put_endpoint(row.uid, str(ipaddress.ip_address(ip)), port)
        return refusal

    def _commit(self, hotkey: str, data: bytes, block: int) -> TxResult | None:
        if self._row(hotkey) is None:
            return _not_registered()
        if not 0 < len(data) <= MAX_COMMITMENT_BYTES:
            return TxResult.refusal(
                TxCode.LIMIT_EXCEEDED,
                "SpaceLimitExceeded",
                f"a commitment is 1 to {MAX_COMMITMENT_BYTES} bytes, not {len(data)}",
            )
        last = self._db.commitment(hotkey, block)
        wait = rules.blocks_to_wait(last[0] if last else None, block, self.parameters.commit_rate_limit)
        if wait:
            return _too_fast("CommitmentSetRateLimitExceeded", wait)
        self._db.put_commitment(hotkey, block, data)
        return None

    def _set_weights(
        self, hotkey: str, weights: Mapping[int, int], version_key: int, block: int
    ) -> TxResult | None:
        row = self._row(hotkey)
        if row is None:
            return _not_registered()
        try:
            normal = normalise(weights)
        except BadInput as error:
            return TxResult.refusal(TxCode.INVALID_ARGUMENT, "WeightVecLengthIsLow", str(error))
        refusal = self._weights_refusal(row.uid, normal, version_key)
        if refusal is not None:
            return refusal
        wait = rules.blocks_to_wait(row.last_update, block, self.parameters.weights_rate_limit)
        if wait:
            hidden = self.parameters.reveal_blocks > 0
            return _too_fast("CommittingWeightsTooFast" if hidden else "SettingWeightsTooFast", wait)
        self._db.put_weights_block(row.uid, block)
        if self.parameters.reveal_blocks == 0:
            self._db.put_weights(row.uid, block, normal)
            return None
        reveal_block = block + self.parameters.reveal_blocks
        self._db.hide_weights(row.uid, block, reveal_block, version_key, normal)
        return TxResult(True, TxCode.OK, None, "hidden until revealed", block, TxMode.COMMIT, reveal_block)

    def _weights_refusal(self, uid: int, weights: Mapping[int, int], version_key: int) -> TxResult | None:
        rows = self._db.neurons()
        return check_weights(
            weights,
            [row.uid for row in rows],
            uid in self._permitted(rows),
            version_key,
            self.parameters.weights_version,
        )

    # ---- blocks -----------------------------------------------------------------------------------

    def _reveal(self, block: int) -> None:
        for uid, committed, version_key, weights in self._db.take_due_weights(block):
            # As on the chain, weights that are invalid by now are dropped silently.
            if weights and self._weights_refusal(uid, weights, version_key) is None:
                self._db.put_weights(uid, committed, weights)

    def _run_epoch(self, block: int) -> None:
        rows = self._db.neurons()
        permitted = self._permitted(rows)
        cutoff = block - self.parameters.activity_cutoff
        stakes = {r.uid: r.stake for r in rows if r.uid in permitted and r.last_update >= cutoff}
        weights = {
            validator: {uid: float(w) for uid, w in row.items() if uid != validator}  # none for oneself
            for validator, (_, row) in self._db.weights().items()
            if validator in stakes
        }
        result = yuma(stakes, weights, tuple(row.uid for row in rows))
        self._db.put_rewards({r.uid: (result.incentive[r.uid], result.dividends[r.uid]) for r in rows})
        self._db.put("epochs", block // self.parameters.tempo)
        self._db.put("last_epoch_block", block)

    def _permitted(self, rows: list[Neuron]) -> frozenset[int]:
        return rules.permits({row.uid: row.stake for row in rows}, self.parameters.max_validators)

    def _row(self, hotkey: str) -> Neuron | None:
        return next((row for row in self._db.neurons() if row.hotkey == hotkey), None)


def _not_registered() -> TxResult:
    return TxResult.refusal(
        TxCode.NOT_REGISTERED, "HotKeyNotRegisteredInSubNet", "register this hotkey on the subnet first"
    )


def _too_fast(chain_error: str, wait: int) -> TxResult:
    return TxResult.refusal(TxCode.RATE_LIMITED, chain_error, f"too soon: wait {counted(wait, 'more block')}")
