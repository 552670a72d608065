"""The storage of a chain at one block: copied cheaply, written freely, kept for ever."""

from __future__ import annotations

from typing import Any

from tests.support.subtensor.blocks import Params

Item = tuple[str, str]


class State:
    """Storage items by module and name, each a map from key parameters to a decoded value.

    A fork shares every item with its parent until one of them writes to it. Values are never changed in
    place: put a new one.
    """

    def __init__(self, items: dict[Item, dict[Params, Any]] | None = None) -> None:
        self._items = items if items is not None else {}
        self._own: set[Item] = set()

    def fork(self) -> State:
        """A copy that no later write to this one reaches."""
        self._own.clear()
        return State(dict(self._items))

    def adopt(self, other: State) -> None:
        """Takes over everything that a fork has written; the fork is not to be used any more."""
        self._items, self._own = other._items, other._own

    def get(self, module: str, item: str, *params: Any) -> Any:
        """The value, or None where nothing is stored."""
        return self._items.get((module, item), {}).get(params)

    def put(self, module: str, item: str, params: Params, value: Any) -> None:
        self._writable((module, item))[params] = value

    def remove(self, module: str, item: str, *params: Any) -> None:
        self._writable((module, item)).pop(params, None)

    def entries(self, module: str, item: str, *prefix: Any) -> list[tuple[Params, Any]]:
        """All stored under a prefix of the key, with their full keys."""
        stored = self._items.get((module, item), {})
        return [(key, value) for key, value in stored.items() if key[: len(prefix)] == prefix]

    def _writable(self, item: Item) -> dict[Params, Any]:
        if item not in self._own:
            self._items[item] = dict(self._items.get(item, {}))
            self._own.add(item)
        return self._items[item]
