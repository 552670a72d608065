"""Documents streamed from a data set on the Hugging Face Hub, or in a local folder of the same layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iota.console.command import WorkFailed
from iota.data.documents import TEXT_FIELD, Document, clean

_FORM = "hf:DATASET[:CONFIG][:SPLIT], for instance hf:HuggingFaceFW/fineweb-edu-score-2"


@dataclass(frozen=True)
class HubSource:
    """One split of a data set, streamed row by row without downloading it first."""

    dataset: str
    config: str | None = None
    split: str = "train"

    @classmethod
    def parse(cls, spec: str) -> HubSource:
        """Parse `hf:DATASET[:CONFIG][:SPLIT]`; an empty config is the default one. Raises `ValueError`."""
        parts = spec.removeprefix("hf:").split(":")
        if not spec.startswith("hf:") or len(parts) > 3 or not parts[0]:
            raise ValueError(f"{spec!r} names no data set: write {_FORM}")
        dataset, config, split = (*parts, "", "")[:3]
        return cls(dataset, config or None, split or "train")

    @property
    def name(self) -> str:
        path = Path(self.dataset)
        shown = path.resolve().name if path.is_dir() else self.dataset
        return f"hf:{shown}:{self.config or ''}:{self.split}"

    @property
    def fingerprint(self) -> str:
        return f"hf:{self.dataset}:{self.config or ''}:{self.split}"

    def documents(self, start: int = 0) -> Iterator[Document]:
        for index, row in enumerate(self._rows(start), start):
            text = row.get(TEXT_FIELD)
            if not isinstance(text, str):
                raise ValueError(
                    f"row {index} of {self.name} has no string {TEXT_FIELD!r} among its fields"
                    f" {sorted(row)}: choose a data set that has"
                )
            if text.strip():
                yield Document(index, str(index), clean(text))

    def _rows(self, start: int) -> Iterator[dict[str, Any]]:
        # `datasets` raises OSError for network failures, ValueError for unknown configs, splits and formats.
        try:
            yield from self._open().skip(start)
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            # A missing data set is a FileNotFoundError; other errors of the Hub and the network may pass.
            passes = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
            raise (WorkFailed if passes else ValueError)(
                f"{self.name} cannot be read ({first}): check the name ({_FORM}) and the network, then run"
                f" the same command again; it continues where it stopped"
            ) from error

    def _open(self) -> Any:
        from datasets import load_dataset

        return load_dataset(self.dataset, self.config, split=self.split, streaming=True)
