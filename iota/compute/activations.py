"""Activation policies: what a forward keeps for its backward, and what the backward computes again.

A part that is computed again runs the same kernels on the same values, so every policy gives the same bits.
torch.utils.checkpoint could not compute again what a later product saves, its input, and would keep it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NoReturn, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from iota.compute.offload import Held, Offload
from iota.model.layer import KeepAll, Piece, Saving
from iota.settings import Activations


def open_saving(policy: Activations, offload: Offload, constants: Iterable[Tensor]) -> Saving:
    """How one pass saves under `policy`. `constants` are in memory anyway: weights and tables.

    Raises:
        ValueError: AUTO, which is a choice among policies.
    """
    match policy:
        case Activations.KEEP:
            return KeepAll()
        case Activations.SELECTIVE:
            return Selective(_OnDevice)
        case Activations.OFFLOAD:
            return Selective(offload.begin(constants))
        case Activations.RECOMPUTE:
            return RecomputeLayers(_OnDevice)
        case Activations.AUTO:
            raise ValueError("AUTO is chosen by the memory that is free, before a pass")


class Shelf(Protocol):
    """Where the saved tensors of one layer are kept."""

    def put(self, tensor: Tensor) -> Held:
        """Keep a tensor."""

    def close(self) -> None:
        """The layer's forward has run."""


class _OnDevice:
    """Tensors stay where they are."""

    def put(self, tensor: Tensor) -> Held:
        kept = tensor.detach()
        return lambda: kept

    def close(self) -> None:
        pass


class Selective:
    """Keeps what products and attention make; the pieces of a layer are computed again."""

    def __init__(self, open_shelf: Callable[[], Shelf]) -> None:
        self._open_shelf = open_shelf
        self._shelf: Shelf = _OnDevice()
        self._made: dict[int, tuple[Again, int, Tensor]] = {}
        """Outputs of pieces by address. While a tensor is held here no other has its address."""

    def layer(self, run: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
        """See `Saving`."""
        self._shelf = self._open_shelf()
        with saved_tensors_hooks(self._pack, _fetch):
            out_BTD = run(x_BTD)
        self._made.clear()
        self._shelf.close()
        return out_BTD

    def piece(self, run: Piece, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Saving`."""
        again = Again(run, inputs, [self._shelf.put(x) for x in inputs])
        outputs = again.first(*inputs)
        for index, output in enumerate(outputs):
            self._made[output.untyped_storage().data_ptr()] = (again, index, output)
        return outputs

    def _pack(self, tensor: Tensor) -> Held:
        made = self._made.get(tensor.untyped_storage().data_ptr())
        if made is None:
            return self._shelf.put(tensor)
        again, index, _ = made
        return again.output(index, tensor)


class RecomputeLayers:
    """Keeps the input of each layer; a layer is computed again when its backward begins."""

    def __init__(self, open_shelf: Callable[[], Shelf]) -> None:
        self._open_shelf = open_shelf

    def layer(self, run: Callable[[Tensor], Tensor], x_BTD: Tensor) -> Tensor:
        """See `Saving`."""
        shelf = self._open_shelf()
        again = Again(lambda x: (run(x),), (x_BTD,), [shelf.put(x_BTD)])
        (out_BTD,) = again.first(x_BTD)
        shelf.close()
        return out_BTD

    def piece(self, run: Piece, *inputs: Tensor) -> tuple[Tensor, ...]:
        """See `Saving`."""
        return run(*inputs)


class Again:
    """A part of a pass that is computed again when the backward first needs a tensor of it.

    What it saves is numbered by order, and the second run saves in the same order.
    """

    def __init__(self, run: Piece, inputs: Sequence[Tensor], held: Sequence[Held]) -> None:
        self._run, self._held = run, held
        self._differentiable = [x.requires_grad for x in inputs]
        device = inputs[0].device.type
        self._autocast = partial(
            torch.autocast,
            device,
            dtype=torch.get_autocast_dtype(device),
            enabled=torch.is_autocast_enabled(device),
        )
        self._count = 0
        self._promised = 0
        """Saved views of outputs that the backward has not asked for yet."""
        self._inner: dict[int, Tensor] = {}
        self._outputs: tuple[Tensor, ...] = ()

    def first(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """The run of the forward, of which nothing is kept."""
        with saved_tensors_hooks(self._pack, _fetch):
            return self._run(*inputs)

    def output(self, index: int, view: Tensor) -> Held:
        """For `view`, a view of output `index` that an op outside saves."""
        self._promised += 1
        return partial(self._take_output, index, view.size(), view.stride(), int(view.storage_offset()))

    def _pack(self, tensor: Tensor) -> Held:
        self._count += 1
        return partial(self._take_inner, self._count - 1)

    def _take_inner(self, number: int) -> Tensor:
        if number not in self._inner:
            self._second()
        return self._inner.pop(number)

    def _take_output(self, index: int, size: torch.Size, stride: tuple[int, ...], offset: int) -> Tensor:
        if not self._outputs:
            self._second()
        view = self._outputs[index].as_strided(size, stride, offset)
        self._promised -= 1
        if not self._promised:
            self._outputs = ()
        return view

    def _second(self) -> None:
        inputs = [
            held().detach().requires_grad_(differentiable)
            for held, differentiable in zip(self._held, self._differentiable, strict=True)
        ]
        saved: list[Tensor] = []

        def collect(tensor: Tensor) -> None:
            saved.append(tensor.detach())
            if len(saved) == self._count and not self._promised:
                raise _Complete  # what follows would be computed for nothing

        outputs: tuple[Tensor, ...] = ()
        try:
            with torch.enable_grad(), self._autocast(), saved_tensors_hooks(collect, _unused):
                outputs = self._run(*inputs)
        except _Complete:
            pass
        self._inner = dict(enumerate(saved))
        self._outputs = tuple(output.detach() for output in outputs) if self._promised else ()


class _Complete(Exception):
    """Everything that a backward needs of a second run is there."""


def _fetch(held: Held) -> Tensor:
    return held()


def _unused(_: None) -> NoReturn:
    raise AssertionError("a second run is not differentiated")
