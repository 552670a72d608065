"""The schedules that are proposed by size: docs/training.md, "Proposed schedules", has the same table."""

from __future__ import annotations

from pathlib import Path

import pytest

from iota.model.presets import PRESETS
from iota.model.proposal import HELDOUT_TOKENS, make_spec
from iota.model.schedules import SCHEDULES
from iota.objects import part_count
from iota.spec import Decay, OptimizerKind, OuterCodec, Precision, RunSpec, json_digest
from iota.spec.draft import from_assignments

TABLE = {
    "tiny": (3, 1, 256, 4, 8, 20, 3, "muon", 5e-3, 0.0, 6, "fp32"),
    "small": (3, 1, 256, 4, 8, 20, 3, "muon", 5e-3, 0.0, 6, "fp32"),
    "nano-20m": (3, 1, 512, 4, 8, 10, 6, "adamw", 1e-3, 0.1, 6, "fp32"),
    "nano-100m": (2, 1, 1024, 8, 64, 20, 240, "adamw", 6e-4, 0.1, 48, "bf16-master"),
    "llama-1b": (4, 1, 2048, 2, 256, 20, 1430, "adamw", 3e-4, 0.1, 286, "bf16-master"),
    "llama-8b": (8, 1, 4096, 1, 1024, 20, 1915, "adamw", 3e-4, 0.1, 383, "bf16-master"),
    "orion-100b": (16, 3, 8000, 1, 480, 10, 1000, "adamw", 1e-4, 0.1, 100, "bf16-master"),
}
"""stages, replicas, tokens, sequences, M, H, epochs, optimizer, rate, weight decay, warm-up, precision."""


def proposed(model: str, *assignments: str) -> RunSpec:
    return make_spec(from_assignments([f"model.preset={model}", *assignments]), "0" * 64, 2)


@pytest.mark.parametrize("model", PRESETS)
def test_each_preset_proposes_this_schedule(model: str) -> None:
    s = proposed(model)
    assert (
        s.layout.stages, s.layout.replicas, s.data.sequence_length, s.data.sequences, s.schedule.microbatches,
        s.schedule.steps, s.schedule.epochs, s.optimizer.kind, s.optimizer.lr, s.optimizer.weight_decay,
        s.optimizer.warmup_steps, s.precision,
    ) == TABLE[model]  # fmt: skip
    assert (s.optimizer.decay, s.optimizer.clip, s.optimizer.betas) == (Decay.COSINE, 1.0, (0.9, 0.95))
    assert s.schedule.credit == {1: 1, 2: 3, 3: 4, 4: 5, 8: 9, 16: 18}[s.layout.stages]
    assert (s.outer.eta, s.outer.momentum) == ((1.0, 0.0) if s.layout.replicas == 1 else (0.7, 0.9))


@pytest.mark.parametrize("model", ["nano-100m", "llama-1b", "llama-8b"])
def test_a_real_size_trains_on_twenty_tokens_a_parameter(model: str) -> None:
    spec = proposed(model)
    shape = spec.model
    layer = 2 * shape.hidden_size**2 + 2 * shape.hidden_size * shape.kv_heads * shape.head_dim
    layer += 3 * shape.hidden_size * shape.ffn_size
    parameters = shape.layers * layer + 2 * shape.vocab_size * shape.hidden_size
    assert spec.tokens / parameters == pytest.approx(20, rel=0.01)


def test_orion_is_as_the_orion_run() -> None:
    spec = proposed("orion-100b")
    assert (spec.layout.stages, spec.layout.replicas, spec.data.tokens) == (16, 3, 8000)
    assert (spec.schedule.steps, spec.boundary.ratio) == (10, 64)


@pytest.mark.parametrize(
    ("codec", "outer"),
    [("none", (0.7, 0.9)), ("int8", (0.7, 0.9)), ("sparse", (1.0, 0.0)), ("sparse64", (1.0, 0.0))],
)
def test_error_feedback_takes_the_place_of_momentum_in_a_sparse_run(
    codec: str, outer: tuple[float, float]
) -> None:
    made = proposed("orion-100b", f"outer.codec={codec}").outer
    assert (made.eta, made.momentum) == outer


@pytest.mark.parametrize("codec", list(OuterCodec))
def test_a_run_with_overlap_has_no_momentum_and_a_small_outer_step_unless_it_is_sparse(
    codec: OuterCodec,
) -> None:
    made = proposed("orion-100b", f"outer.codec={codec}", "outer.overlap=one_epoch").outer
    assert (made.eta, made.momentum) == (1.0 if codec.is_sparse else 0.5, 0.0)


def test_the_default_spec_is_that_of_the_version_before() -> None:
    """But for version, audits, credit, what is held out, and fields that the version before did not have."""
    spec = make_spec({}, "0" * 64, 257)
    assert spec.precision is Precision.FP32
    others = {
        "version": True,
        "audit": True,
        "precision": True,
        "schedule": {"heldout", "keep_every", "credit"},
        "model": {"rope_scaling", "depth_scaled_init"},
        "optimizer": {"moments", "gradient_sums", "first_step"},
        "data": {"mask_documents", "eos_id", "first_sequence"},
        "outer": {"codec", "beta", "overlap"},
    }
    computed = spec.model_dump(mode="json", exclude=others) | {"compute": "fp32"}  # as it was called
    assert json_digest(computed) == "a9bab2354211d340c7a40ca0786679748af25893a0a9acebad364362b7e39a5b"


def test_the_rate_follows_the_optimizer_and_a_given_one_stays() -> None:
    rates = {kind: proposed("small", f"optimizer.kind={kind}").optimizer.lr for kind in OptimizerKind}
    assert rates == {"adamw": 1e-3, "muon": 5e-3, "sgd": 1e-1}
    assert proposed("llama-1b", "optimizer.lr=1e-5").optimizer.lr == 1e-5


def test_replicas_get_an_outer_step_unless_one_is_given() -> None:
    assert proposed("small", "layout.replicas=2").outer.momentum == 0.9
    assert proposed("small", "layout.replicas=2", "outer.eta=0.5").outer.momentum == 0


def test_a_large_stage_is_cut_into_parts_that_can_be_counted() -> None:
    sizes = {model: proposed(model).outer.part_elements for model in ("small", "llama-1b", "orion-100b")}
    assert sizes == {"small": 1 << 22, "llama-1b": 1 << 23, "orion-100b": 1 << 26}
    spec = proposed("orion-100b")
    assert max(part_count(spec, stage) for stage in range(spec.layout.stages)) <= 128
    assert proposed("orion-100b", "outer.part_elements=1000").outer.part_elements == 1000


def test_another_shape_gets_the_schedule_of_the_nearest_preset(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(PRESETS["llama-1b"].model_copy(update={"layers": 20}).canonical())
    spec = proposed(str(tmp_path / "mine.json"))
    assert (spec.optimizer.lr, spec.data.sequence_length, spec.precision) == (
        3e-4,
        2048,
        Precision.BF16_MASTER,
    )
    assert spec.name == "mine"


def test_every_preset_has_a_schedule_and_its_row_in_the_docs() -> None:
    assert SCHEDULES.keys() == PRESETS.keys()
    page = Path("docs/training.md").read_text()
    for model, row in TABLE.items():
        stages, replicas, tokens, sequences, microbatches, steps, epochs, kind, rate, *_ = row
        work = f"{sequences} x {tokens:,} | {microbatches:,} | {steps} | {epochs:,}"
        line = f"| `{model}` | {stages} x {replicas} | {work} | {kind}, {rate:g} |"
        assert line in page, line


def test_a_large_tokenizer_leaves_the_schedule_of_the_preset_alone() -> None:
    plain, grown = (make_spec({}, "0" * 64, ids) for ids in (257, 128_256))
    assert (grown.schedule, grown.data, grown.optimizer) == (plain.schedule, plain.data, plain.optimizer)


def test_held_out_microbatches_take_little_compute_and_no_more_than_the_data_holds_out() -> None:
    for preset in PRESETS:
        spec = proposed(preset)
        assert 0 < spec.heldout_share <= 1 / 40, preset
        assert spec.schedule.heldout * spec.data.tokens < HELDOUT_TOKENS + spec.data.tokens
    spec = proposed("small")
    assert (spec.schedule.heldout, spec.heldout_share) == (12, 12 / 492)
    little = make_spec({}, "0" * 64, 257, 3 * 4 * 256 + 1)
    assert little.schedule.heldout == 3
    assert make_spec({}, "0" * 64, 257, 100).schedule.heldout == 0
    assert make_spec(from_assignments(["schedule.heldout=99"]), "0" * 64, 257, 100).schedule.heldout == 99
