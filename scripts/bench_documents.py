"""What masked documents do to the loss: held-out loss with and without `data.mask_documents`, all else equal.

Every row is one training run in this process, as in `bench_boundary`, on short documents: the docstrings of
the Python standard library. Each model is measured as it was trained: the masked one sees a held-out document
alone, the other one what stands before it in its sequence as well. **seconds** are of the whole run.

    python scripts/bench_documents.py --threads 1            # preset `tiny`, 240 steps, two seeds
    python scripts/bench_documents.py --smoke                # does it run at all; seconds
"""

from __future__ import annotations

import ast
import json
import statistics
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import torch
from bench_boundary import DENSE, SIZES, Size, heldout_tokens, spec_of, train, training_parser

from iota.data import DirectoryReader
from iota.spec import OptimizerKind, Pipeline, RunSpec
from iota.swarm.preparation import prepare_data
from iota.swarm.run_dir import write_json

_LEAST: Final = 40
"""Characters of a docstring that is a document."""


@dataclass(frozen=True)
class Row:
    """One run."""

    masked: bool
    seed: int
    train_loss: float
    heldout_loss: float
    seconds: float


def docstrings() -> Iterator[str]:
    """Those of the standard library's modules, classes and functions, in the order of the files' names."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            text = ast.get_docstring(node) if isinstance(node, kinds) else None
            if text is not None and len(text) >= _LEAST:
                yield text


def bench(size: Size, seeds: int, folder: Path, say: Callable[[str], None]) -> list[Row]:
    """With and without masks, for every seed."""
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "docstrings.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in docstrings()))
    manifest = prepare_data(str(source), "bytes", folder / "data", say)
    documents = sum(each.documents for each in manifest.sources)
    say(f"{documents} documents of {sum(each.tokens for each in manifest.sources) / documents:.0f} tokens")
    reader = DirectoryReader(folder / "data", manifest.content_digest())
    heldout = heldout_tokens(size, reader)
    ids = manifest.tokenizer
    rows = []
    for seed in range(seeds):
        plain = spec_of(
            size,
            OptimizerKind.ADAMW,
            DENSE,
            1,
            seed,
            Pipeline.SYNC,
            reader.manifest.content_digest(),
            ids.vocab_size,
        )
        for masked in (False, True):
            data = plain.data.model_dump() | {
                "mask_documents": masked,
                "eos_id": ids.eos_id if masked else None,
            }
            spec = RunSpec.model_validate({**plain.model_dump(), "data": data})
            found = train(spec, reader, heldout, "cpu")
            rows.append(Row(masked, seed, found.train_loss, found.heldout_loss, found.seconds))
            say(json.dumps(asdict(rows[-1])))
    return rows


def table(rows: list[Row]) -> str:
    """Markdown."""
    text = ["| documents | held-out loss | seconds |", "|---|---|---|"]
    for masked in (False, True):
        group = [row for row in rows if row.masked is masked]
        losses = ", ".join(f"{row.heldout_loss:.4f}" for row in group)
        seconds = statistics.fmean(row.seconds for row in group)
        text.append(f"| {'masked' if masked else 'not masked'} | {losses} | {seconds:.0f} |")
    return "\n".join(text)


def main() -> None:
    parser = training_parser(__doc__)
    parser.add_argument("--sequence-length", type=int, help="tokens, in place of the size's")
    parser.set_defaults(seeds=2, data_dir=Path("runs/bench-documents"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    size: Size = SIZES[given.size]
    size = replace(
        size,
        steps=given.steps or size.steps,
        sequence_length=given.sequence_length or size.sequence_length,
    )
    rows = bench(size, given.seeds, given.data_dir, lambda text: print(text, flush=True))
    print("\n" + table(rows))
    if given.json is not None:
        write_json(given.json, {"size": asdict(size), "rows": [asdict(row) for row in rows]})


if __name__ == "__main__":
    main()
