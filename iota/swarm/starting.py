"""Puts existing weights where a run's store has its bases, for a run that starts from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from iota.console.watch import Watch
from iota.files import write_whole
from iota.model.pretrained import Pretrained, find_pretrained
from iota.outer.start import StartWeights, pinned, store_start
from iota.spec import RunSpec
from iota.store import ObjectStore, StoreUnavailable
from iota.swarm.earlier_run import earlier_run, opening_of
from iota.swarm.options import SwarmOptions
from iota.swarm.run_dir import RunDir


def starting_weights(init: str) -> Pretrained:
    """The weights `init`: a folder, or a name on the Hub, whose outages are waited for.

    Raises:
        ValueError: they are not there, or not those of a Llama that a run can train.
        ConditionStands: the Hub was away until the condition's end.
    """
    return Watch(f"--init {init}").persevere_blocking(lambda: find_pretrained(init))


def start_from(
    spec: RunSpec, weights: StartWeights, store: Path | Callable[[], ObjectStore], say: Callable[[str], None]
) -> RunSpec:
    """The spec of a run that starts from `weights`, whose parts are then in `store`.

    `store` is the folder of an embedded store, or opens one. A call that was interrupted is repeated: what is
    stored already is not stored again.

    Raises:
        ValueError: the weights do not fit, or are not finite.
        StoreError, OSError: the store or its disk fails.
    """
    if spec.boundary.codec != "identity" and spec.layout.stages > 1:
        say(f"the {spec.boundary.codec} boundaries begin untrained: losses begin above those of the weights")
    say(f"reading the weights of {weights.source}")
    made = pinned(spec, weights)
    if isinstance(store, Path):
        store_start(made, weights, lambda key, data: _write(store / key, data))
    else:
        _upload(store, lambda put: store_start(made, weights, put))
    return made


def start_from_init(
    spec: RunSpec, init: str, store: Path | Callable[[], ObjectStore], say: Callable[[str], None]
) -> RunSpec:
    """The spec of a run from the weights of --init. Raises as `starting_weights` and `start_from`."""
    weights = starting_weights(init)
    if weights.tied:
        say("the head begins as a copy of the embedding, and is trained as a matrix of its own")
    return start_from(spec, weights, store, say)


def started(spec: RunSpec, options: SwarmOptions, run_dir: RunDir, say: Callable[[str], None]) -> RunSpec:
    """The spec of an `iota up` with its start weights, which are then in the store of `run_dir`.

    Without start weights it is `spec`. Raises as `starting_weights`, `earlier_run` and `start_from`.
    """
    if options.init is not None:
        return start_from_init(spec, options.init, run_dir.store, say)
    if options.origin is None:
        return spec
    with earlier_run(opening_of(options.origin, {}, {}, say), options.epoch) as earlier:
        return start_from(spec, earlier.weights(run_dir.root, lambda *_: None), run_dir.store, say)


def _write(path: Path, data: bytes) -> None:
    if not path.exists():  # files appear whole, and the run's id in the key covers their content
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)


def _upload(open_it: Callable[[], ObjectStore], work: Callable[[Callable[[str, bytes], None]], None]) -> None:
    """Call `work` with a function that puts one object into the store, unless it is there.

    A store that is away is outlasted. Raises ConditionStands where it was until the condition's end.
    """
    watch = Watch("the upload")

    async def put(store: ObjectStore, key: str, data: bytes) -> None:
        if await watch.persevere(lambda: store.size(key), StoreUnavailable) is None:
            await watch.persevere(lambda: store.put(key, data), StoreUnavailable)

    with asyncio.Runner() as runner:
        store = open_it()
        try:
            runner.run(watch.persevere(store.adapt, StoreUnavailable))
            work(lambda key, data: runner.run(put(store, key, data)))
        finally:
            runner.run(store.close())
