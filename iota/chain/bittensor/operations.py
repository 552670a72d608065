"""The writes: their checks before sending, their spending limits, and their outcome.

A write is one intent of the SDK. It is executed once (`retries` stays 0), under a policy that allows no
spending and one subnet, with keys that sign once (`wallet`). The SDK's transport does not resend a submission
after a reconnection.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import bittensor as bt
from bittensor import calls, storage

from iota.chain.bittensor.connection import Session
from iota.chain.bittensor.faults import outcome, refused
from iota.chain.bittensor.view import RAO_PER_TAO, BlockView
from iota.chain.bittensor.wallet import WriteKeys
from iota.chain.chain import RegistrationTerms, TxCode, TxResult
from iota.chain.errors import BadInput
from iota.chain.inputs import endpoint_refusal
from iota.chain.weight_rules import U16_MAX, check_weights

ERA_BLOCKS: Final = 32
"""Mortality of a write: it can get into this many blocks after the one it is signed over. A power of two."""
FINALITY_BLOCKS: Final = 8
"""Blocks after the era until the block that holds a write is surely final; GRANDPA takes 2 to 4."""
MAX_FEE_TAO: Final = 0.1
"""Limit of a write's transaction fee; ordinary fees are a thousandth of it."""
_module = storage.SubtensorModule
_log = logging.getLogger(__name__)


@dataclass
class SetCommitment(bt.Intent):  # type: ignore[misc]
    """Commits 1 to 128 bytes under the hotkey; the SDK has no intent for it, only the raw call."""

    op = "set_commitment"
    signer = "hotkey"

    netuid: int
    data: bytes

    async def build(self, substrate: Any, wallet: Any) -> Any:
        """The SDK's hook for the call to sign."""
        info = {"fields": [{f"Raw{len(self.data)}": self.data}]}
        return await substrate.compose(calls.Commitments.set_commitment(netuid=self.netuid, info=info))

    def summary(self) -> str:
        """The SDK's hook for its messages."""
        return f"commit {len(self.data)} bytes on netuid {self.netuid}"


@dataclass
class Register(bt.BurnedRegister):  # type: ignore[misc]
    """The SDK's paid registration, with the price read again when the call is built.

    The policy's spend cap then applies to that price; the SDK's own intent states none, which every cap
    forbids. With a limit the chain itself refuses a price that has risen since.
    """

    shielded: bool = True
    """False where the chain offers no shield key, so that the registration is public at once."""
    limit_rao: int | None = None
    """The most to pay; None for any price."""
    price_rao: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.mev_shield_required = self.shielded

    async def build(self, substrate: Any, wallet: Any) -> Any:
        """The SDK's hook for the call to sign."""
        self.price_rao = int(await substrate.query(*_module.Burn[:2], [self.netuid]))
        named = {"netuid": self.netuid, "hotkey": self.hotkey_address(wallet)}
        if self.limit_rao is None:
            return await substrate.compose(calls.SubtensorModule.burned_register(**named))
        return await substrate.compose(
            calls.SubtensorModule.register_limit(**named, limit_price=self.limit_rao)
        )

    def spend(self) -> Any:
        """The SDK's hook for the amount that the policy judges."""
        return bt.Balance.from_rao(self.price_rao)


async def read_terms(view: BlockView, session: Session, netuid: int) -> RegistrationTerms:
    """Price and conditions of a registration. Raises BadInput for an unknown subnet."""
    await view.require_subnet(netuid)
    return RegistrationTerms(
        open=bool(await view.query(_module.NetworkRegistrationAllowed, netuid)),
        cost_tao=await view.number(_module.Burn, netuid) / RAO_PER_TAO,
        shielded=await session.substrate.mev_next_key() is not None,
        needs_coldkey=True,
    )


async def register(
    session: Session, netuid: int, terms: RegistrationTerms, keys: WriteKeys, max_cost_tao: float | None
) -> TxResult:
    """Register on `terms`. Raises BadInput, and sends nothing, if it costs more than `max_cost_tao`."""
    if max_cost_tao is not None and terms.cost_tao > max_cost_tao:
        raise BadInput(
            f"registering on subnet {netuid} costs {terms.cost_tao:g} TAO now, more than the {max_cost_tao:g}"
            " allowed: nothing was sent"
        )
    limit = None if max_cost_tao is None else round(max_cost_tao * RAO_PER_TAO)
    intent = Register(netuid=netuid, shielded=terms.shielded, limit_rao=limit)
    policy = bt.Policy(
        max_spend_tao=None if limit is None else bt.Balance.from_rao(limit),
        max_fee_tao=MAX_FEE_TAO,
        allowed_netuids=[netuid],
    )
    return await _execute(session, intent, keys, policy)


async def serve(session: Session, netuid: int, ip: str, port: int, keys: WriteKeys) -> TxResult:
    """Publish this hotkey's address."""
    refusal = endpoint_refusal(ip, port)
    if refusal is not None:
        return refusal
    address = str(ipaddress.ip_address(ip))
    return await _write(session, bt.ServeAxon(netuid=netuid, ip=address, port=port), keys)


async def commit(session: Session, netuid: int, data: bytes, keys: WriteKeys) -> TxResult:
    """Put 1 to 128 bytes on the chain."""
    return await _write(session, SetCommitment(netuid=netuid, data=data), keys)


async def set_weights(
    session: Session,
    view: BlockView,
    netuid: int,
    weights: Mapping[int, int],
    version_key: int,
    keys: WriteKeys,
) -> TxResult:
    """Set `weights`, which are u16 with the greatest at 65535 and no zeros."""
    hidden = bool(await view.query(_module.CommitRevealWeightsEnabled, netuid))
    if hidden:
        # The chain would drop invalid weights silently at their reveal, so they are refused here.
        refusal = await _check_commit(view, netuid, weights, version_key, keys.signer.ss58_address)
        if refusal is not None:
            return refusal
    clipped = _clipped(weights, await view.query(_module.MaxWeightsLimit, netuid))
    if clipped:
        _log.warning("subnet %d: %s", netuid, clipped)
    intent = bt.SetWeights(netuid=netuid, weights=dict(weights), version_key=version_key)
    try:
        return await _write(session, intent, keys)
    except bt.ChainError as error:
        if error.__cause__ is not None or error.name is not None or keys.signer.spent:
            raise
        # The SDK checked before signing, and gives the kind of refusal without the chain's name for it.
        too_fast = "CommittingWeightsTooFast" if hidden else "SettingWeightsTooFast"
        names = {
            bt.ErrorCode.RATE_LIMITED: too_fast,
            bt.ErrorCode.NOT_REGISTERED: "HotKeyNotRegisteredInSubNet",
            bt.ErrorCode.NOT_AUTHORIZED: "NeuronNoValidatorPermit",
            bt.ErrorCode.INVALID_ARGUMENT: "WeightVecLengthIsLow",
        }
        if error.code not in names:
            raise
        return refused(names[error.code], str(error), error)


async def unregistered(view: BlockView, netuid: int, hotkey: str) -> TxResult | None:
    """The refusal of a write by a hotkey without a uid; the chain would take a fee for it. None with a uid.

    Raises:
        BadInput: unknown subnet.
    """
    await view.require_subnet(netuid)
    if await view.uid(netuid, hotkey) is not None:
        return None
    return TxResult.refusal(
        TxCode.NOT_REGISTERED, "HotKeyNotRegisteredInSubNet", f"{hotkey} has no uid on subnet {netuid}"
    )


async def unregistrable(
    view: BlockView, netuid: int, terms: RegistrationTerms, hotkey: str
) -> TxResult | None:
    """The refusal of a registration: the hotkey has a uid, or registration is closed. Else None."""
    if await view.uid(netuid, hotkey) is not None:
        return TxResult.refusal(
            TxCode.ALREADY_EXISTS,
            "HotKeyAlreadyRegisteredInSubNet",
            f"{hotkey} is on subnet {netuid} already",
        )
    if not terms.open:
        return TxResult.refusal(
            TxCode.DISABLED, "SubNetRegistrationDisabled", f"registration on subnet {netuid} is closed"
        )
    return None


async def _write(session: Session, intent: Any, keys: WriteKeys) -> TxResult:
    """Execute an intent that may pay its fee alone."""
    policy = bt.Policy(max_spend_tao=0, max_fee_tao=MAX_FEE_TAO, allowed_netuids=[intent.netuid])
    return await _execute(session, intent, keys, policy)


async def _execute(session: Session, intent: Any, keys: WriteKeys, policy: Any) -> TxResult:
    result = await session.client.execute(
        intent, keys, policy=policy, period=ERA_BLOCKS, wait_for_inclusion=True, wait_for_finalization=True
    )
    return outcome(result, session.node)


async def _check_commit(
    view: BlockView, netuid: int, weights: Mapping[int, int], version_key: int, hotkey: str
) -> TxResult | None:
    """The refusal that hidden weights would meet at their reveal, or None."""
    uid = await view.uid(netuid, hotkey)
    permits = await view.query(_module.ValidatorPermit, netuid)
    # The chain requires no permit of a subnet's owner, nor for weights on oneself alone.
    free = set(weights) == {uid} or str(await view.query(_module.SubnetOwnerHotkey, netuid)) == hotkey
    return check_weights(
        weights,
        range(await view.number(_module.SubnetworkN, netuid)),
        free or (uid is not None and bool(permits[uid])),
        version_key,
        await view.number(_module.WeightsVersionKey, netuid),
    )


def _clipped(weights: Mapping[int, int], limit: Any) -> str | None:
    """A warning where the SDK cuts the greatest weights to the subnet's limit; else None."""
    share = max(weights.values()) / sum(weights.values())
    if limit is None or len(weights) == 1 or share * U16_MAX <= int(limit):
        return None
    return (
        f"its max_weight_limit allows one uid {int(limit) / U16_MAX:.4f} of all weights, and these give"
        f" {share:.4f}: they are cut to the limit, and the rest is spread over the others"
    )
