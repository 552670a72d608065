"""Weight versions of one replica, in as few buffers as the pipeline permits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from iota.compute.errors import VersionError

Weights = dict[str, Tensor]
_AS_HELD: Final[Mapping[str, torch.dtype]] = {}


class Versions:
    """Weights by version number. STEP makes a version from the newest one.

    `dtypes` are the parameters that ops use in another dtype: `operands` converts them once for a version.
    """

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        version: int,
        device: torch.device,
        dtypes: Mapping[str, torch.dtype] = _AS_HELD,
        *,
        before: Mapping[str, Tensor] | None = None,
    ) -> None:
        """`before` holds the weights of the version before, if there are any to hold."""
        self._held: dict[int, Weights] = {version: _own(weights, device)}
        if before:
            self._held[version - 1] = _own(before, device)
        self._spare: Weights | None = None
        self._dtypes = dtypes
        self._converted: dict[int, Weights] = {}
        """Converted parameters by version."""
        self.newest = version

    @property
    def weights(self) -> Weights:
        """The newest weights."""
        return self._held[self.newest]

    @property
    def held(self) -> tuple[int, ...]:
        """Numbers of the versions in memory, ascending."""
        return tuple(sorted(self._held))

    def get(self, version: int) -> Weights:
        """The weights of `version`. Raises VersionError if they are not in memory."""
        if version not in self._held:
            raise VersionError(f"weight version {version} is not held, only {list(self.held)}")
        return self._held[version]

    def operands(self, version: int) -> Weights:
        """The weights of `version` as ops use them: some of them in another dtype. Raises VersionError.

        They share memory with the version, and with one another from call to call.
        """
        weights = self.get(version)
        if version not in self._converted:
            self._converted[version] = {name: weights[name].to(to) for name, to in self._dtypes.items()}
        return weights | self._converted[version]

    def advance(self, *, keep: bool, changed: bool) -> Weights:
        """Make the next version, with the newest one's values, and return its weights for an update.

        With `keep` the newest version stays, and the next one has its own memory. Without, the next
        version takes over the memory, and the old number is gone. If the caller will change nothing
        (`changed` is False), both numbers share the memory.
        """
        old = self._held[self.newest]
        new = self._copy(old) if keep and changed else old
        if not keep:
            del self._held[self.newest]
            self._converted.pop(self.newest, None)
        self.newest += 1
        self._held[self.newest] = new
        return new

    def release(self, version: int) -> None:
        """Release a version other than the newest, and keep its memory for the next copy."""
        weights = self._held.pop(version)
        self._converted.pop(version, None)
        if all(weights is not other for other in self._held.values()):
            self._spare = weights

    def _copy(self, weights: Weights) -> Weights:
        spare, self._spare = self._spare, None
        if spare is None:
            return {name: w.clone() for name, w in weights.items()}
        for name, w in weights.items():
            spare[name].copy_(w)
        return spare


def _own(weights: Mapping[str, Tensor], device: torch.device) -> Weights:
    """A copy, because versions are updated in place."""
    return {name: weights[name].to(device=device, copy=True) for name in sorted(weights)}
