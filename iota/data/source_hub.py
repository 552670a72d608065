"""Documents streamed from a data set on the Hugging Face Hub, or in a local folder of the same layout."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from iota.console.watch import Watch, pause
from iota.data.documents import Cursor, Document
from iota.data.rows import DEFAULT_RULES, RowRules, check_column, field_of
from iota.data.source_files import check_inside, find_files
from iota.data.text_parts import parts
from iota.hub import HubAway, asking
from iota.spec import json_digest

_FORM = "hf:DATASET[@REVISION][:CONFIG][:SPLIT], for instance hf:HuggingFaceFW/fineweb-edu-score-2"
_STATE_ROWS = 1024
"""Rows between two saved states of the stream; a resumed reading reads over fewer."""


@dataclass(frozen=True)
class HubSource:
    """One split of a data set at one commit, streamed row by row without downloading it first."""

    dataset: str
    revision: str | None = None
    """Branch, tag or commit; None is the main branch, as it is now."""
    config: str | None = None
    split: str = "train"
    rules: RowRules = DEFAULT_RULES

    @classmethod
    def parse(cls, spec: str, rules: RowRules = DEFAULT_RULES) -> HubSource:
        """Parse `hf:DATASET[@REVISION][:CONFIG][:SPLIT]`; an empty config is the default one.

        Raises:
            ValueError: for another form.
        """
        fields = spec.removeprefix("hf:").split(":")
        if not spec.startswith("hf:") or len(fields) > 3 or not fields[0]:
            raise ValueError(f"{spec!r} names no data set: write {_FORM}")
        named, config, split = (*fields, "", "")[:3]
        dataset, at, revision = (named, "", "") if Path(named).is_dir() else named.partition("@")
        if not dataset or (at and not revision):
            raise ValueError(f"{spec!r} names no data set: write {_FORM}")
        return cls(dataset, revision or None, config or None, split or "train", rules)

    @property
    def name(self) -> str:
        at = "" if Path(self.dataset).is_dir() else f"@{self.fingerprint}"
        return f"hf:{self._shown}{at}:{self.config or ''}:{self.split}"

    @property
    def _shown(self) -> str:
        path = Path(self.dataset)
        return path.resolve().name if path.is_dir() else self.dataset

    @property
    def fingerprint(self) -> str:
        if not Path(self.dataset).is_dir():
            return self._commit
        return "files-" + json_digest([[name, status.st_size] for name, status in self._local()])

    @property
    def identity(self) -> str:
        local = Path(self.dataset).is_dir()
        times = [str(status.st_mtime_ns) for _, status in self._local()] if local else []
        return json_digest([self.name, self.fingerprint, times, asdict(self.rules)])

    @property
    def left_out(self) -> str:
        return ""

    def fraction(self, at: Cursor) -> float | None:
        return None

    def read(self, start: Cursor, skipped: Counter[str]) -> Iterator[Document]:
        # The cursor is [row, part of it, rows before it since the state, state of the stream or null].
        number, part, since, state = start or (0, 0, 0, None)
        first = number
        for row, *place in self._rows(since, state):
            before = [number, since, state]
            number, (since, state) = number + 1, place
            text = self.rules.text(field_of(row, self.rules.field), f"{self.name}: row {number}", skipped)
            for count, (piece, last) in enumerate(parts([text] if text else []), 1):
                if count > part or number > first + 1:
                    after = [number, 0, since, state] if last else [before[0], count, *before[1:]]
                    yield Document(str(number - 1), piece, after, count - 1, last)

    def _rows(self, since: int, state: Any) -> Iterator[tuple[Any, int, Any]]:
        """The rows after the next `since` ones of the stream at `state`, each with the place after it.

        While the Hub is away it waits, and goes on from the last place.
        """
        watch = Watch(f"hf:{self._shown}")
        while True:
            try:
                stream = self._open(state)
                with self._asking():
                    for row in islice(stream, since, None):
                        watch.passed()
                        since += 1
                        if since == _STATE_ROWS:
                            since, state = 0, stream.state_dict()
                        yield row, since, state
                return
            except HubAway as error:
                pause_s = watch.failed(error)
            pause(pause_s)

    def _open(self, state: Any) -> Any:
        """The stream, from `state` on. Raises `ValueError` if there is none, or it has no such column."""
        from datasets import load_dataset_builder

        local = Path(self.dataset).is_dir()
        with self._asking():
            revision = None if local else self.fingerprint
            builder = load_dataset_builder(self.dataset, self.config, revision=revision)
        if local:
            _check_files(Path(self.dataset), builder.config.data_files)
        with self._asking():
            stream = builder.as_streaming_dataset(split=self.split)
        if stream.features is not None:
            try:
                check_column(stream.features.arrow_schema, self.rules.field)
            except ValueError as error:
                raise ValueError(f"hf:{self._shown} {error}") from error
            whole = self.rules.field in stream.features
            stream = stream.select_columns([self.rules.field if whole else self.rules.field.split(".")[0]])
        if state is not None:
            stream.load_state_dict(state)
        return stream

    @cached_property
    def _commit(self) -> str:
        """The commit that the revision is now, which a resumed or repeated preparation has to be of too."""
        if self.revision is not None and re.fullmatch("[0-9a-f]{40}", self.revision):
            return self.revision
        found = Watch(f"hf:{self._shown}").persevere_blocking(self._ask_commit)
        if found is None:
            raise ValueError(f"the Hub names no commit of hf:{self.dataset}: give hf:{self.dataset}@COMMIT")
        return found

    def _ask_commit(self) -> str | None:
        from huggingface_hub import HfApi

        with self._asking():
            return HfApi().dataset_info(self.dataset, revision=self.revision).sha

    def _asking(self) -> AbstractContextManager[None]:
        at = f"@{self.revision}" if self.revision else ""
        return asking(f"hf:{self._shown}{at}", f"check the name ({_FORM})")

    def _local(self) -> list[tuple[str, os.stat_result]]:
        root = Path(self.dataset)
        return sorted((p.relative_to(root).as_posix(), p.stat()) for p in find_files(root, frozenset()))


def _check_files(root: Path, files: Mapping[str, Sequence[str]] | None) -> None:
    """Refuse data files, by split, that are not in the folder: its README.md may name any file or URL.

    Of a data set on the Hub, `datasets` does the same.
    """
    for name in (name for split in (files or {}).values() for name in split):
        place = name.rpartition("::")[2]  # zip://INNER::FILE
        if "://" in place:
            raise ValueError(f"hf:{root} names {place} as its data, which is outside of it: take that out")
        check_inside(root, [Path(place)])
