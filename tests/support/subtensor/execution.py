"""What a call sees and does while a block is made."""

from __future__ import annotations

from typing import Any

from tests.support.subtensor.blocks import Event
from tests.support.subtensor.state import State

PALLET = "SubtensorModule"


class Execution:
    """One block being made: its storage, its number, and the events so far."""

    def __init__(self, state: State, block: int) -> None:
        self.state = state
        self.block = block
        self.extrinsic_index: int | None = None
        """Of the extrinsic at work; None before and after all of them."""
        self.events: list[Event] = []

    def emit(self, module: str, name: str, attributes: Any) -> None:
        self.events.append(Event(module, name, attributes, self.extrinsic_index))

    def get(self, item: str, *params: Any) -> Any:
        """A value of the SubtensorModule pallet."""
        return self.state.get(PALLET, item, *params)

    def put(self, item: str, params: tuple[Any, ...], value: Any) -> None:
        """Stores a value of the SubtensorModule pallet."""
        self.state.put(PALLET, item, params, value)
