"""Fingerprints: what a device answers to a nonce, to show its class (`iota.compute.fingerprint`)."""

from __future__ import annotations

from typing import Final

from iota.spec import Frozen, Hex32, json_digest

FINGERPRINT_VERSION: Final = 1
"""Version of the suite of kernels, of their inputs and of the form. It is part of every nonce and input."""
FINGERPRINT_DOMAIN: Final = f"iota/fingerprint/{FINGERPRINT_VERSION}"


class Fingerprint(Frozen):
    """BLAKE3 (hex) of the bits that each part of the suite gave. No part reads the result of another one."""

    forward: Hex32
    """FORWARD of a narrowed stage: the payload. At the last stage the losses."""
    backward: Hex32
    """BACKWARD of the same: the payload, and the gradient of each parameter."""
    step: Hex32
    """STEP with seeded gradients and moments: the gradient's norm, the new weights and moments."""
    wide: Hex32
    """Single kernels over the run's full lengths: matrix products, norms, attention, loss."""

    def differences(self, other: Fingerprint) -> tuple[str, ...]:
        """Names of the parts that differ; none on one device class."""
        return tuple(name for name in Fingerprint.model_fields if getattr(self, name) != getattr(other, name))


def fingerprint_nonce(run: str, epoch: int, base: str, hotkey: str) -> str:
    """The nonce of a miner's fingerprint in an epoch: BLAKE3 (hex) over its names in canonical form.

    `base` is the digest of the stage's base of that epoch (`iota.outer.base.base_digest`, as in `Ready`). The
    base is merged from what all replicas of the stage trained, so nobody knows its digest before the merge,
    and no answer can be computed or bought long before. One exception: the base of epoch 0 follows from the
    spec, so the nonce of epoch 0 is known beforehand, and its answer shows less. The hotkey makes an answer
    worthless to other miners.
    """
    return json_digest([FINGERPRINT_DOMAIN, run, epoch, base, hotkey])
