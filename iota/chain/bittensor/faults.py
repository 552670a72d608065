"""Maps the SDK's errors and results to those of `iota.chain`; no type of the SDK leaves this package.

A failure before a write is signed means that nothing was sent. Afterwards every outcome but success, a
failure inside a block and a refusal by the pool leaves the write's fate unknown:
`Unavailable(fate_unknown=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import bittensor as bt
from bittensor._transport.errors import (
    BlockNotFound,
    ExtrinsicNotFound,
    StateDiscardedError,
    SubstrateRequestException,
)
from websockets.exceptions import WebSocketException

from iota.chain import errors
from iota.chain.bittensor.transport import scrubbed
from iota.chain.bittensor.wallet import SignedAlready
from iota.chain.chain import TxCode, TxMode, TxResult

SDK: Final = f"bittensor {bt.__version__}"
# Raised by the SDK's codec and reads where the runtime lacks an item, or has it in another form.
_DRIFT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
_LOST = (bt.RpcConnectionError, SubstrateRequestException, WebSocketException, OSError, TimeoutError)
# Answers of the transaction pool that do not judge the write: it was not taken, and a retry may succeed.
_BUSY = {
    "Stale": "another write of the same key has taken the nonce: is the key in use elsewhere?",
    "PriorityTooLow": "another write of the same key waits in the pool: is the key in use elsewhere?",
    "ExhaustsResources": "the blocks are full",
    "AncientBirthBlock": "the write came too late for the block that it was signed over",
}
_BUSY_TEXTS = ("immediately dropped", "temporarily banned")
# The SDK reports these as refusals, but such an extrinsic may still get into a block.
_UNDECIDED = {"Usurped", "Retracted", "FinalityTimeout", "Dropped", "Invalid", "AlreadyImported", "Future"}
_CODES = {code.value: code for code in TxCode} | {
    "subtoken_disabled": TxCode.DISABLED,
    "too_early": TxCode.RATE_LIMITED,
}


@dataclass(frozen=True, slots=True)
class Node:
    """The node in use, for messages."""

    endpoint: str
    """Redacted."""
    spec: int | None
    """The runtime's version; None before it is known."""

    @property
    def runtime(self) -> str:
        """The runtime's version, for messages."""
        return "an unknown runtime" if self.spec is None else f"runtime {self.spec}"


def fault(error: Exception, node: Node, *, sent: bool) -> Exception:
    """The error to raise for one that an SDK call raised; `sent` where an extrinsic may have been sent.

    An unknown error is returned as it is, since it is a bug.
    """
    text = scrubbed(str(error)) or type(error).__name__
    if sent and isinstance(error, (bt.BittensorError, SignedAlready, *_LOST, *_DRIFT)):
        return _fate_unknown(node, text)
    if isinstance(error, errors.ChainError):
        return error
    if isinstance(error, bt.PolicyError):
        return _policy_error(error.violations, text)
    if isinstance(error, bt.RpcPolicyError):
        return errors.Unavailable(
            f"no usable answer from {node.endpoint}, which limits its clients: {text}; name another node with"
            " --subtensor.chain_endpoint if it stays so"
        )
    if isinstance(error, _LOST):
        return errors.Unavailable(f"no usable answer from {node.endpoint}: {text}")
    if isinstance(error, bt.ChainError):
        return _failed_read(error, node, text)
    if isinstance(error, (bt.BittensorError, *_DRIFT)):
        return drifted(node, text)
    return error


def drifted(node: Node, text: str) -> errors.Incompatible:
    """The error for versions of SDK and runtime that do not fit."""
    return errors.Incompatible(
        f"{node.runtime} at {node.endpoint} and {SDK} do not fit ({text}): update iota (and its SDK) if the"
        " runtime is newer, or use a node with a newer runtime"
    )


def is_lost(error: Exception) -> bool:
    """True where the connection should be reopened, which also reads the runtime's metadata again."""
    return isinstance(error, (*_LOST, *_DRIFT)) and not isinstance(error, errors.ChainError)


def is_drift(error: Exception) -> bool:
    """True where the versions of SDK and runtime may not fit."""
    return isinstance(error, (bt.BittensorError, *_DRIFT)) and not isinstance(
        error, (errors.ChainError, bt.PolicyError, *_LOST)
    )


def outcome(result: Any, node: Node) -> TxResult:
    """The outcome of a write, from the SDK's result.

    Raises:
        Unavailable, Incompatible: the result does not tell whether the chain takes the write.
    """
    block = _block(result.extrinsic_id)
    reveal = result.data.get("reveal_round")
    if result.success:
        return TxResult(
            ok=True,
            code=TxCode.OK,
            chain_error=None,
            message="",
            block=block,
            mode=TxMode.PLAIN if reveal is None else TxMode.COMMIT,
            reveal_round=None if reveal is None else int(reveal),
            fee_tao=float(result.fee.tao) if result.fee is not None else 0.0,
        )
    name = result.error.name if result.error is not None else None
    text = scrubbed(result.message)
    if block is None:
        _raise_unless_refused(name, text, node)
    return refused(name, text, result.error, block)


def refused(name: str | None, text: str, error: Any, block: int | None = None) -> TxResult:
    """The chain's refusal of a write, with the code of the SDK's classification."""
    code = TxCode.UNKNOWN if error is None else _CODES.get(error.code.value, TxCode.UNKNOWN)
    if name == "SpaceLimitExceeded":
        code = TxCode.RATE_LIMITED  # the SDK calls it a cap, but it ends with the tempo
    return TxResult(ok=False, code=code, chain_error=name, message=text, block=block)


def _raise_unless_refused(name: str | None, text: str, node: Node) -> None:
    """Raise, unless the pool refused the write by its rules."""
    lower = text.lower()
    if name in _BUSY or (name is None and any(busy in lower for busy in _BUSY_TEXTS)):
        why = _BUSY.get(name or "", "its pool of transactions is full")
        raise errors.Unavailable(f"{node.endpoint} does not take this write now: {why} ({text})")
    if name == "BadProof":
        raise errors.Incompatible(
            f"{node.endpoint} refuses the signature, made by {SDK} for {node.runtime}: if the chain changes"
            " to a newer runtime just now, the next try will pass; otherwise update iota (and its SDK)"
        )
    if name is None or name in _UNDECIDED:
        raise _fate_unknown(node, text)


def _fate_unknown(node: Node, text: str) -> errors.Unavailable:
    return errors.Unavailable(
        f"it is not known whether the chain took this write ({node.endpoint}: {text})", fate_unknown=True
    )


def _failed_read(error: Any, node: Node, text: str) -> errors.ChainError:
    """The error for a read that the node answered with an error."""
    cause = error.__cause__
    if isinstance(cause, StateDiscardedError) or "state already discarded" in text.lower():
        return errors.Unavailable(
            f"{node.endpoint} has dropped the state of that block: this look-up needs an archive node, such"
            " as the network `archive`"
        )
    if isinstance(cause, (BlockNotFound, ExtrinsicNotFound)):
        return errors.Unavailable(f"{node.endpoint} does not know that block (yet): {text}")
    if isinstance(cause, _DRIFT) or "exported method" in text.lower():
        return drifted(node, text)
    return errors.Unavailable(f"no usable answer from {node.endpoint}: {text}")


def _policy_error(violations: list[str], text: str) -> errors.ChainError:
    """The error for a write that the policy of `operations` forbids: nothing was sent."""
    if any("could not" in violation for violation in violations):
        return errors.Unavailable(f"the write's fee cannot be estimated now, and nothing was sent: {text}")
    if any(violation.startswith("spend") for violation in violations):
        return errors.BadInput(f"it costs more than is allowed, and nothing was sent: {text}")
    return errors.Rejected(f"nothing was sent: {text}")


def _block(extrinsic_id: str | None) -> int | None:
    """The block number in the SDK's `BLOCK-INDEX`."""
    return None if extrinsic_id is None else int(extrinsic_id.partition("-")[0])
