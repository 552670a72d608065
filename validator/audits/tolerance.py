"""Whether a replay agrees with what a miner sent and committed to.

On one device class, which a fingerprint shows, it agrees bit for bit. Else whole tensors are compared, each
quantity within the bound of a profile: one that was measured for the two classes, else the wide one that the
run declares. Bounds depend on the depth (`Profile.depths`): replays drift apart from step to step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from torch import Tensor

from iota.codec.errors import PayloadError
from iota.codec.shapes import payload_shape
from iota.codec.wire_dtype import decode_wire, payload_tensor
from iota.compute.names import Output
from iota.compute.state import StageState
from iota.protocol.receipts import OpKind, Receipt
from iota.spec import RunSpec
from validator.audits.declared import declared_bounds
from validator.audits.distances import (
    GIVEN_FLOOR,
    Worst,
    number_error,
    sums,
    token_norms,
    worst_token,
)
from validator.audits.measured import (
    MeasuredProfile,
    covers,
    effective_bounds,
    formats,
    segment_steps,
    shipped_profiles,
)
from validator.audits.state_distances import state_distances
from validator.core.results import Bounds, PayloadForm, Profile, Quantity, ReplayMismatch

EXACT: Final = Profile("exact", exact=True)


def profile_for(
    spec: RunSpec,
    mine: str,
    theirs: str,
    profiles: Sequence[MeasuredProfile] | None = None,
    *,
    shown: bool = False,
) -> Profile:
    """The exact profile for a device class that was shown to be this one, else a measured or declared one.

    A name decides nothing that the bits have decided. Where names are equal and nothing shows it, the bounds
    are those that the run declares. A measured bound is never above the declared one of its quantity: no
    name gains anything beyond what the run declares.

    Args:
        mine, theirs: device classes (`iota.compute.determinism.device_class`).
        profiles: measured ones, of which the first that holds is taken; None for those that are shipped.
        shown: whether the miner's fingerprint is this machine's.
    """
    if shown:
        return EXACT
    form, steps = PayloadForm(spec.boundary.wire, payload_shape(spec)), segment_steps(spec)
    depths = range(1, steps + 1)
    found = [
        each
        for each in (shipped_profiles() if profiles is None else profiles)
        if mine != theirs and covers(each, spec, mine, theirs)
    ]
    if not found:
        why = "class not shown/" if mine == theirs else ""
        own = spec.optimizer
        kind = formats(spec.precision, own.kind, own.moments, own.gradient_sums)
        name = f"{why}declared/{spec.audit.tolerance:g}/{kind}"
        declared = tuple(declared_bounds(spec, depth) for depth in depths)
        return Profile(name, exact=False, depths=declared, payloads=form)
    bounds = tuple(effective_bounds(spec, found[0], depth) for depth in depths)
    return Profile(found[0].name(steps), exact=False, depths=bounds, payloads=form)


def compare_output(
    profile: Profile,
    receipt: Receipt,
    replayed: Output,
    sent: bytes | None,
    depth: int,
    given: bytes | None = None,
) -> ReplayMismatch | None:
    """Compare a FORWARD, BACKWARD, LOSS or EVAL with its replay; None if they agree.

    Args:
        sent: the payload as in the store; None where the op sends none: EVAL, of which the loss is compared,
            and stage 0's gradient, of which across classes only the segment's end tells.
        depth: 1 where the replay was given the weights that the op used.
        given: payload of the frame to which the op adds: the activations of a FORWARD, the gradient of a
            BACKWARD; None where there is none.

    Raises ValueError without the payload of an op that sends one, which is an error of the caller.
    """
    if profile.exact and receipt.output != replayed.digest:
        reason = "the output has another digest"
        return ReplayMismatch(receipt.seq, replayed.digest, receipt.output, reason)
    if not profile.exact and replayed.payload is not None:
        if sent is None:
            raise ValueError(f"the payload of receipt {receipt.seq} is needed to compare it across classes")
        for quantity, worst in payload_distances(_form(profile), sent, replayed.payload, given):
            off = _beyond(profile.bounds(depth), receipt.kind, quantity, receipt.seq, worst)
            if off is not None:
                return off
    if replayed.loss is None:
        return None
    return _compare_number(profile.bounds(depth), receipt, Quantity.LOSS, receipt.loss, replayed.loss)


def compare_norm(profile: Profile, receipt: Receipt, replayed: float, depth: int) -> ReplayMismatch | None:
    """Compare the gradient norm that a STEP names with its replay's; None if they agree."""
    stated = None if receipt.update is None else receipt.update.gradient_norm
    return _compare_number(profile.bounds(depth), receipt, Quantity.NORM, stated, replayed)


def compare_state(
    profile: Profile, seq: int, start: StageState, theirs: StageState, mine: StageState, depth: int
) -> ReplayMismatch | None:
    """Compare the states at a segment's end, across classes; None if they agree. All are on the CPU.

    Args:
        seq: of the COMMIT at the segment's end.
        start: the state at the segment's start, from which both came.
        theirs: what the miner committed to.
        depth: the steps of the segment.
    """
    for quantity, worst in state_distances(start, theirs, mine).items():
        off = _beyond(profile.bounds(depth), OpKind.COMMIT, quantity, seq, worst)
        if off is not None:
            return off
    return None


def payload_distances(
    form: PayloadForm, sent: bytes, replayed: bytes | memoryview, given: bytes | None = None
) -> Iterator[tuple[Quantity, Worst]]:
    """Distances of a sent payload from the replay's. One that is no payload of the run is infinitely far.

    `given` is what the op was to add to: what is left of it is measured by a share of it at least
    (`GIVEN_FLOOR`), and below that has no direction.
    """
    mine_BTK = decode_wire(payload_tensor(replayed), form.shape, form.wire)
    try:
        theirs_BTK = decode_wire(payload_tensor(sent), form.shape, form.wire)
    except PayloadError as error:
        yield Quantity.ERROR, Worst(float("inf"), str(error))
        return
    floor_N = None if given is None else _floors(form, given)
    floor = 0.0 if floor_N is None else float(floor_N.norm())
    whole = sums(theirs_BTK, mine_BTK)
    yield Quantity.ERROR, Worst(whole.error_by(floor))
    if whole.mine >= floor**2:
        yield Quantity.COSINE, Worst(whole.cosine)
    yield Quantity.TOKEN, worst_token(theirs_BTK, mine_BTK, floor_N)


def _floors(form: PayloadForm, given: bytes) -> Tensor:
    """Least norm of each token by the frame that the op was given, float64 (B·T,)."""
    return GIVEN_FLOOR * token_norms(decode_wire(payload_tensor(given), form.shape, form.wire))


def _form(profile: Profile) -> PayloadForm:
    if profile.payloads is None:
        raise ValueError(f"profile {profile.name!r} does not say what payloads look like")
    return profile.payloads


def _beyond(
    bounds: Bounds, kind: OpKind, quantity: Quantity, seq: int, worst: Worst
) -> ReplayMismatch | None:
    """The mismatch of a distance beyond its bound. NaN is beyond any."""
    bound = bounds.of(kind, quantity)
    if worst.distance <= bound:
        return None
    at = f" at {worst.place}" if worst.place else ""
    reason = f"{kind}'s {quantity} is off by {worst.distance:.3g}{at}, and {bound:.3g} is allowed"
    return ReplayMismatch(seq, f"at most {bound:.6g}", f"{worst.distance:.6g}", reason)


def _compare_number(
    bounds: Bounds, receipt: Receipt, quantity: Quantity, theirs: float | None, mine: float
) -> ReplayMismatch | None:
    off = _beyond(bounds, receipt.kind, quantity, receipt.seq, Worst(number_error(theirs, mine)))
    if off is None:
        return None
    return ReplayMismatch(off.seq, repr(mine), repr(theirs), off.reason)
