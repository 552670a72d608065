"""A fingerprint is equal on one device class, and differs where training differs."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iota.compute.fingerprint import fingerprint
from iota.compute.seeded import Seeded
from iota.compute.state import tensors_digest
from iota.model.layout import count, run_shapes
from iota.model.narrowed import MAX_FFN, MAX_TOKENS, MAX_VOCABULARY, MAX_WIDTH, narrowed
from iota.model.presets import PRESETS
from iota.protocol.fingerprints import Fingerprint, fingerprint_nonce
from iota.spec import Precision, RunSpec, WireDtype
from tests.support.device_bits import NONCE, measure
from tests.support.small_spec import small_spec

FP32 = ["fp32-adamw-0", "fp32-muon-1", "fp32-adamw-2"]
BF16 = ["bf16-master-adamw-1", "bf16-master-muon-2", "bf16-sr-adamw-1"]
VARIANTS: dict[str, tuple[int, dict[str, str], list[str]]] = {
    "same": (1, {}, FP32 + BF16),
    "3 threads": (3, {}, FP32 + BF16),
    "plain": (1, {"ATEN_CPU_CAPABILITY": "default"}, FP32 + BF16),
    # torch asks its library for instructions beyond AVX2 in bf16, which fails on machines that have AMX.
    "avx2": (1, {"ATEN_CPU_CAPABILITY": "avx2"}, FP32),
    "onednn": (1, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"}, FP32 + BF16),
    "mkl": (1, {"MKL_CBWR": "COMPATIBLE"}, FP32 + BF16),
}
"""Threads, environment and cases of processes, each compared with one of one thread and no environment."""

Bits = dict[str, Any]


def bits_of(variant: tuple[int, dict[str, str], list[str]]) -> Bits:
    """What a new process of this variant computes."""
    threads, environment, cases = variant
    command = [sys.executable, "-W", "ignore", "-m", "tests.support.device_bits", str(threads), *cases]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
    found: Bits = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def reference() -> Bits:
    return bits_of((1, {}, FP32 + BF16))


def made(spec: RunSpec | None = None, stage: int = 0, nonce: str = NONCE) -> Fingerprint:
    """The fingerprint of this process."""
    return fingerprint(spec or small_spec(), stage, "cpu", nonce)


# ---- one class ------------------------------------------------------------------------------------


def test_another_process_of_the_class_gives_the_same_bits(reference: Bits, one_thread: None) -> None:
    assert bits_of(VARIANTS["same"]) == reference
    assert measure(1, FP32[:1] + BF16[:1])["cases"].items() <= reference["cases"].items()


def test_every_thread_of_a_process_gives_the_same_bits() -> None:
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda _: made(stage=1), range(6)))
    assert {*found, made(stage=1)} == {found[0]}


def test_the_bits_do_not_depend_on_what_the_process_did_before() -> None:
    first = made(stage=1)
    torch.manual_seed(7)
    made(nonce="0" * 64)
    with torch.no_grad():
        assert made(stage=1) == first


# ---- another class --------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "same"])
def test_a_device_that_trains_otherwise_has_another_fingerprint(reference: Bits, variant: str) -> None:
    found = bits_of(VARIANTS[variant])
    otherwise = [
        case
        for case, bits in found["cases"].items()
        if bits["training"] != reference["cases"][case]["training"]
    ]
    unseen = [
        case
        for case in otherwise
        if found["cases"][case]["fingerprint"] == reference["cases"][case]["fingerprint"]
    ]
    assert unseen == []
    kernels = [bits["class"].split("/")[2] for bits in (found, reference)]
    assert otherwise or kernels[0] == kernels[1], "other kernels, and training gives the same"


# ---- another input --------------------------------------------------------------------------------


def test_another_nonce_changes_every_part() -> None:
    assert made().differences(made(nonce="0" * 64)) == ("forward", "backward", "step", "wide")
    assert made().differences(made()) == ()


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"optimizer": {"lr": 1e-2, "kind": "muon"}}, {"step", "wide"}),
        ({"optimizer": {"lr": 2e-2}}, {"step"}),
        ({"optimizer": {"lr": 1e-2, "clip": 1e-3}}, {"step"}),
        ({"boundary": {"wire": WireDtype.INT8}}, {"forward", "backward"}),
        ({"boundary": {"codec": "resbm"}}, {"forward", "backward", "step"}),
        ({"boundary": {"codec": "identity"}}, {"forward", "backward", "step"}),
    ],
    ids=["muon", "rate", "clip", "wire", "codec", "identity"],
)
def test_another_kernel_changes_the_parts_that_run_it(change: dict[str, Any], parts: set[str]) -> None:
    assert set(made(stage=1).differences(made(small_spec(**change), 1))) == parts


def test_bf16_changes_what_computes_in_it() -> None:
    spec = RunSpec.model_validate({**small_spec().model_dump(), "precision": Precision.BF16_MASTER})
    assert set(made().differences(made(spec))) == {"forward", "backward", "wide"}


def test_the_step_of_bf16_weights_has_their_roundings(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec.model_validate({**small_spec().model_dump(), "precision": Precision.BF16_SR})
    found = made(spec)
    assert set(made().differences(found)) == {"forward", "backward", "step", "wide"}
    monkeypatch.setattr("iota.compute.rounding.rounded", lambda values, bits: values.bfloat16())
    assert found.differences(made(spec)) == ("step",)


def test_every_kind_of_stage_has_one() -> None:
    spec = small_spec(layout={"cuts": [1, 1, 1]})
    assert len({made(spec, stage) for stage in range(3)}) == 3
    assert made(small_spec(layout={"cuts": [3]}))


@pytest.mark.parametrize("kind", ["adamw", "muon", "sgd"])
@pytest.mark.parametrize("wire", WireDtype)
def test_every_optimizer_and_wire_dtype_has_one(kind: str, wire: WireDtype) -> None:
    made(small_spec(optimizer={"lr": 1e-2, "kind": kind}, boundary={"wire": wire}), 1)


# ---- the process ----------------------------------------------------------------------------------


def test_the_process_is_as_it_was() -> None:
    def settings() -> tuple[Any, ...]:
        return (
            torch.get_num_threads(),
            torch.get_rng_state().tolist(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
            torch.is_autocast_enabled("cpu"),
            torch.are_deterministic_algorithms_enabled(),
        )

    before = settings()
    made()
    assert settings() == before


def test_no_tensor_is_kept() -> None:
    def tensors() -> int:
        return sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())

    made(stage=1)
    gc.collect()
    before = tensors()
    gc.disable()
    try:
        made(stage=1)
        assert tensors() == before
    finally:
        gc.enable()


# ---- cost -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("codec", ["identity", "resbm-anchor"])
def test_a_narrowed_stage_has_a_bounded_size(preset: str, codec: str) -> None:
    model = PRESETS[preset]
    spec = small_spec(
        model=model.model_dump(),
        layout={"cuts": [model.layers // 2, model.layers - model.layers // 2]},
        boundary={"codec": codec, "ratio": 16, "anchor_rank": 32},
        data={"manifest": "0" * 64, "sequence_length": 4096, "sequences": 8},
    )
    narrow = narrowed(spec)
    bound = 4 * MAX_WIDTH**2 + 3 * MAX_WIDTH * MAX_FFN + 2 * (MAX_WIDTH + 32) * MAX_VOCABULARY
    assert all(count(run_shapes(narrow, stage)) <= bound for stage in range(2))
    assert narrow.data.tokens <= MAX_TOKENS
    assert narrow.model.head_dim == model.head_dim


def test_what_is_within_the_bounds_is_not_narrowed() -> None:
    spec = small_spec()
    narrow = narrowed(spec)
    assert narrow.model == spec.model.model_copy(update={"layers": 2})
    assert narrow.data == spec.data
    assert narrow.layout.cuts == (1, 1)


def test_a_narrowed_run_keeps_the_scaling_of_its_rotary_waves() -> None:
    scaling = {"factor": 8.0, "original_positions": 4}
    plain = small_spec()
    spec = small_spec(model=plain.model.model_dump() | {"rope_scaling": scaling})
    assert narrowed(spec).model.rope_scaling == spec.model.rope_scaling is not None
    found = [fingerprint(s, 0, "cpu", NONCE) for s in (spec, plain)]
    assert found[0].forward != found[1].forward


@given(
    keys=st.integers(1, 16), group=st.integers(1, 72), size=st.sampled_from([1, 3, 64, 96, 128]),
    ratio=st.integers(1, 200), codec=st.sampled_from(["identity", "resbm"]),
)  # fmt: skip
def test_every_width_is_narrowed_to_one_that_fits_the_codec(
    keys: int, group: int, size: int, ratio: int, codec: str
) -> None:
    heads = keys * group
    fits = codec == "identity" or heads * size % ratio == 0
    model = {
        "vocab_size": 50, "hidden_size": heads * size, "layers": 3,
        "heads": heads, "kv_heads": keys, "ffn_size": 48,
    }  # fmt: skip
    spec = small_spec(model=model, boundary={"codec": codec, "ratio": ratio if fits else 1})
    narrow = narrowed(spec)
    assert narrow.model.hidden_size <= max(MAX_WIDTH, size * group * spec.boundary.ratio)
    assert narrow.model.hidden_size <= spec.model.hidden_size
    assert run_shapes(narrow, 0)


# ---- the nonce and the form -----------------------------------------------------------------------

NAMES = (st.text(), st.integers(0, 2**31 - 1), st.text(), st.text())


@given(one=st.tuples(*NAMES), two=st.tuples(*NAMES))
def test_no_two_names_share_a_nonce(one: tuple[str, int, str, str], two: tuple[str, int, str, str]) -> None:
    assert (fingerprint_nonce(*one) == fingerprint_nonce(*two)) is (one == two)


@given(parts=st.lists(st.sampled_from(["1", "\n", ",", '"', "ab"]), max_size=6), data=st.data())
def test_no_text_moves_from_one_name_to_the_next(parts: list[str], data: st.DataObject) -> None:
    cuts = [data.draw(st.integers(0, len(parts))) for _ in range(2)]
    one, two = (("".join(parts[:cut]), 1, "".join(parts[cut:]), "") for cut in cuts)
    assert (fingerprint_nonce(*one) == fingerprint_nonce(*two)) is (one == two)


def test_the_nonce_is_the_same_in_every_version_that_does_not_raise_its_own() -> None:
    found = fingerprint_nonce("a" * 64, 3, "b" * 64, "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty")
    assert found == "03c72fa9ed9295f2b0696b576fc42601c7f2bbca409e9988501da7f176e4bf2a"


def test_the_inputs_have_the_same_bits_on_every_machine() -> None:
    seeded = Seeded(NONCE, torch.device("cpu"))
    shapes = {"m": (3, 5), "v": (7,)}
    moments = {"exp_avg.m": (3, 5), "exp_avg_sq.m": (3, 5), "step.m": ()}
    drawn = torch.from_numpy(seeded.tokens("t", (2, 3), 50))
    digest = tensors_digest({**seeded.weights(shapes), **seeded.moments(moments), "t": drawn})
    assert digest == "68a10cfb236a7fe00d74a6d777c4fe2037a0288bfce5a5b936c7f98ea4167dbc"


def test_it_has_room_in_a_receipt_and_reads_back() -> None:
    found = made()
    assert len(found.canonical()) < 400
    assert Fingerprint.model_validate_json(found.canonical()) == found
