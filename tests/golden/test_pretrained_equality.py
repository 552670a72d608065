"""A pipeline that starts from existing weights computes what `transformers` computes with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from iota.compute import Microbatch
from iota.compute.engine import Engine
from iota.compute.state import StageState
from iota.model.pretrained import find_pretrained
from iota.model.proposal import make_spec
from iota.objects import start_key
from iota.outer.base import base_digest, initial_base, named_weights, read_base
from iota.outer.start import pinned, store_start
from iota.protocol.records import START_RECORDS
from iota.spec import RunSpec
from iota.spec.draft import from_assignments, merged
from tests.support.llamas import save_llama
from tests.support.small_runs import sample


def started(folder: Path, *assignments: str) -> tuple[RunSpec, dict[str, bytes]]:
    """The spec of a two-stage run from the weights in `folder`, and what is in its store."""
    weights = find_pretrained(str(folder))
    given = from_assignments(
        [
            "layout.cuts=2,1",
            "data.sequence_length=32",
            "data.sequences=2",
            "outer.part_elements=3000",
            *assignments,
        ]
    )
    spec = pinned(make_spec(merged(given, weights.draft(given)), "0" * 64, 257), weights)
    stored: dict[str, bytes] = {}
    store_start(spec, weights, stored.__setitem__)
    return spec, stored


def start_states(spec: RunSpec, stored: dict[str, bytes]) -> list[StageState]:
    """Each stage's state, read from the store as a miner reads it, against the digests of the spec."""
    states = []
    assert spec.init is not None
    for record in START_RECORDS.validate_json(stored[start_key(spec.id)]):
        base = read_base(spec, record.stage, [stored[part.key] for part in record.parts])
        assert base_digest(spec, base) == record.digest == spec.init.digests[record.stage]
        states.append(StageState(named_weights(spec, record.stage, base.weights)))
    return states


@pytest.mark.parametrize(
    ("kept", "outer"),
    [
        ({}, []),
        ({"dtype": torch.bfloat16}, []),
        ({"tie_word_embeddings": True}, []),
        ({"shard": "60KB"}, ["outer.momentum=0.5", "outer.eta=0.7"]),
        ({"num_key_value_heads": 4, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, []),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "rope_theta": 500.0,
                    "factor": 4.0,
                    "low_freq_factor": 1.0,
                    "high_freq_factor": 3.0,
                    "original_max_position_embeddings": 24,
                }
            },
            [],
        ),
    ],
    ids=["fp32", "bf16", "tied", "several files", "other shape", "rotary scaling"],
)
def test_the_first_loss_is_that_of_the_transformers_model(
    tmp_path: Path, kept: dict[str, Any], outer: list[str]
) -> None:
    model = save_llama(tmp_path / "llama", **kept)
    spec, stored = started(tmp_path / "llama", "boundary.codec=identity", "boundary.wire=fp32", *outer)
    ids, found = first_loss(spec, stored)
    with torch.no_grad():
        logits = model(ids[:, :-1]).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert found == pytest.approx(float(expected), abs=1e-6)


def test_the_first_loss_with_masked_documents_is_that_of_the_transformers_model_with_a_mask(
    tmp_path: Path,
) -> None:
    model = save_llama(tmp_path / "llama")
    values = ("boundary.codec=identity", "boundary.wire=fp32", "data.mask_documents=true")
    spec, stored = started(tmp_path / "llama", *values)
    ids, found = first_loss(spec, stored)
    inputs = ids[:, :-1]
    documents = (inputs == spec.data.eos_id).cumsum(1)
    assert int(documents.max()) > 1
    same = documents[:, :, None] == documents[:, None, :]
    mask = torch.zeros(same.shape).masked_fill_(~same.tril(), -torch.inf)[:, None]
    with torch.no_grad():
        logits = model(inputs, attention_mask=mask).logits
        expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    assert found == pytest.approx(float(expected), abs=1e-6)


def first_loss(spec: RunSpec, stored: dict[str, bytes]) -> tuple[torch.Tensor, float]:
    """The token ids of a microbatch, and its loss in the pipeline."""
    first, last = (Engine(spec, stage) for stage in range(2))
    for engine, state in zip((first, last), start_states(spec, stored), strict=True):
        engine.load(state, version=0)
    tokens, mb = sample(spec)(0, 0, 0), Microbatch(0, 0, 0)
    found = last.loss(mb, 0, first.forward(mb, 0, None, tokens).payload, tokens).loss
    assert found is not None
    return torch.from_numpy(tokens), float(found)


def test_fresh_codecs_begin_as_in_a_run_from_the_seed(tmp_path: Path) -> None:
    save_llama(tmp_path / "llama")
    spec, stored = started(tmp_path / "llama", "boundary.ratio=4", "boundary.anchor_rank=4")
    for stage, state in enumerate(start_states(spec, stored)):
        seeded = named_weights(spec, stage, initial_base(spec, stage).weights)
        same = {name for name, tensor in state.weights.items() if torch.equal(tensor, seeded[name])}
        assert same >= {name for name in seeded if name.startswith("boundary.")} != set()
        assert "layers.0.mlp.up_proj.weight" not in same
