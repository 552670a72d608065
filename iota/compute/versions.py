"""Weight versions of one replica, in as few buffers as the pipeline allows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from iota.compute.errors import VersionError

Weights = dict[str, Tensor]


class Versions:
    """fp32 weights by version number. The newest is the one that a step moves on from."""

    def __init__(self, weights: Mapping[str, Tensor], version: int, device: torch.device) -> None:
        # a copy: versions are changed in place and the caller's tensors must not be
        own = {name: weights[name].to(device=device, copy=True) for name in sorted(weights)}
        self._held: dict[int, Weights] = {version: own}
        self._spare: Weights | None = None
        self.newest = version

    @property
    def weights(self) -> Weights:
        """The newest weights."""
        return self._held[self.newest]

    @property
    def held(self) -> tuple[int, ...]:
        return tuple(sorted(self._held))

    def get(self, version: int) -> Weights:
        """Raises VersionError where the version is not held."""
        if version not in self._held:
            raise VersionError(f"weight version {version} is not held, only {list(self.held)}")
        return self._held[version]

    def advance(self, *, keep: bool, changed: bool) -> Weights:
        """Make the next version and return its weights, still equal to the newest, for updating.

        `keep`: the newest stays in use, so the next one gets other memory, else the same is updated in
        place and the old number is gone. `changed` False: both numbers name the same memory.
        """
        old = self._held[self.newest]
        new = self._copy(old) if keep and changed else old
        if not keep:
            del self._held[self.newest]
        self.newest += 1
        self._held[self.newest] = new
        return new

    def release(self, version: int) -> None:
        """Forget an older version and keep its memory for the next copy; the newest always stays."""
        if version == self.newest or version not in self._held:
            return
        weights = self._held.pop(version)
        if all(weights is not other for other in self._held.values()):
            self._spare = weights

    def _copy(self, weights: Weights) -> Weights:
        spare, self._spare = self._spare, None
        if spare is None:
            return {name: w.clone() for name, w in weights.items()}
        for name, w in weights.items():
            spare[name].copy_(w)
        return spare
