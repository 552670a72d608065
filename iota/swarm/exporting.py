"""Exports the newest complete base in a run's folder as a `transformers` model."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blake3 import blake3
from pydantic import TypeAdapter

from iota.protocol.records import BaseRecord
from iota.spec import RunSpec
from iota.swarm.run_dir import RunDir

if TYPE_CHECKING:
    from torch import Tensor

ASK_S = 5.0
"""Timeout of the request to the orchestrator, which may not run any more."""
_BASES: TypeAdapter[list[BaseRecord]] = TypeAdapter(list[BaseRecord])


def complete_bases(spec: RunSpec, bases: list[dict[str, Any]]) -> list[BaseRecord] | None:
    """The bases of a status, ordered by stage; None unless every stage has one."""
    found = sorted(_BASES.validate_python(bases), key=lambda base: base.stage)
    stages = [base.stage for base in found]
    return found if stages == list(range(spec.layout.stages)) else None


def newest_bases(run: RunDir, spec: RunSpec) -> list[BaseRecord]:
    """The newest complete base: from the orchestrator if it runs, else as recorded by the last `iota up`.

    Raises:
        ValueError: the run has no base yet.
    """
    info = run.info()
    for bases in (_bases_at(info.get("url")), info.get("bases")):
        found = complete_bases(spec, bases or [])
        if found is not None:
            return found
    raise ValueError(f"the run in {run.root} has no merged weights yet: let it end its first epoch")


def export_run(root: Path, out: Path) -> int:
    """Export the run in `root` to the folder `out`; returns the epoch of the weights.

    Raises:
        ValueError: no run, no base yet, a part that is missing or damaged, or `out` is not empty.
    """
    from iota.data import open_tokenizer, read_manifest
    from iota.model.export import export_model

    run = RunDir(root)
    spec, options = run.saved_spec(), run.saved_options()
    if spec is None or options is None:
        raise ValueError(f"there is no run in {root}: give the folder of an `iota up` with --run-dir")
    bases = newest_bases(run, spec)
    tokenizer = open_tokenizer(options.tokenizer)
    eos = read_manifest(run.store, spec.data.manifest).tokenizer.eos_id
    export_model(spec, _weights(run, spec, bases), tokenizer.save, out, eos_token=eos)
    return bases[0].epoch


def _weights(run: RunDir, spec: RunSpec, bases: list[BaseRecord]) -> Iterator[dict[str, Tensor]]:
    """Yields each stage's tensors by name, so that one stage is in memory at a time."""
    import torch

    from iota.model.layout import run_shapes
    from iota.outer.base import read_base
    from iota.outer.partition import PartError
    from iota.outer.pseudo_gradient import unflatten

    for base in bases:
        parts = [
            _read_part(run.store / stored.key, stored.digest)
            for stored in sorted(base.parts, key=lambda stored: stored.key)
        ]
        try:
            state = read_base(spec, base.stage, parts)
        except PartError as error:
            raise ValueError(
                f"the base of stage {base.stage} is damaged ({error}): resume the run"
            ) from error
        shapes = run_shapes(spec, base.stage)
        like = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        yield unflatten(torch.from_numpy(state.weights), like)


def _read_part(path: Path, digest: str) -> bytes:
    """The content of a stored part, checked against its digest."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): resume the run to store it") from error
    if blake3(data).hexdigest() != digest:
        raise ValueError(f"{path} is damaged: remove it and resume the run to store it again")
    return data


def _bases_at(url: str | None) -> list[dict[str, Any]] | None:
    """The bases in the status of the orchestrator at `url`; None if none answers."""
    if url is None:
        return None
    try:
        with urllib.request.urlopen(f"{url}/v1/status", timeout=ASK_S) as answer:
            bases: list[dict[str, Any]] = json.load(answer)["bases"]
            return bases
    except (urllib.error.URLError, TimeoutError, ConnectionError, ValueError, KeyError):
        return None
