"""Initial weights have the same bits on every machine, and the distribution that they state."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch

from iota.compute.state import tensors_digest
from iota.model.initial import initial_weights
from tests.support.small_spec import small_spec

DIGEST = "812de0bc1d62aaf86cb26538fe529fe75e2eb0627feb1c213a78a8a3f55fac79"
"""Changes with the format of initial weights alone, and then every run starts from others."""
PROGRAM = """
from iota.compute.state import tensors_digest
from iota.model.initial import initial_weights
from tests.support.small_spec import small_spec
print(tensors_digest(initial_weights(small_spec(), 0)))
"""


def test_the_bits_are_those_that_every_machine_makes() -> None:
    assert tensors_digest(initial_weights(small_spec(), 0)) == DIGEST


@pytest.mark.parametrize("kernels", ["default", "avx2"])
def test_the_bits_do_not_depend_on_the_instruction_set(kernels: str) -> None:
    none = "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL AVX512_ICL"
    limits = {"ATEN_CPU_CAPABILITY": kernels, "NPY_DISABLE_CPU_FEATURES": none}
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        env=os.environ | limits,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == DIGEST


def test_the_bits_do_not_depend_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    try:
        digests = set()
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            digests.add(tensors_digest(initial_weights(small_spec(), 0)))
    finally:
        torch.set_num_threads(before)
    assert digests == {DIGEST}


def test_a_seed_and_a_name_give_values_of_their_own() -> None:
    weights, other = initial_weights(small_spec(), 0), initial_weights(small_spec(seed=1), 0)
    assert not torch.equal(weights["embed.weight"], other["embed.weight"])
    layer = "layers.0.mlp."
    assert not torch.equal(weights[f"{layer}gate_proj.weight"], weights[f"{layer}up_proj.weight"])


def test_matrices_have_the_stated_spread_and_projections_into_the_residual_a_smaller_one() -> None:
    model = {"vocab_size": 4000, "hidden_size": 64, "layers": 2, "heads": 4, "kv_heads": 4, "ffn_size": 2000}
    spec = small_spec(model=model, layout={"cuts": [2]})
    weights = initial_weights(spec, 0)
    std = spec.model.init_std
    for name, expected in (("embed.weight", std), ("layers.0.mlp.down_proj.weight", std / math.sqrt(4))):
        values = weights[name].double()
        count = values.numel()
        assert abs(float(values.mean())) < 5 * expected / math.sqrt(count)
        assert float(values.std()) == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
        assert float(values.abs().max()) < math.sqrt(12) * expected
        # Four uniform addends: an excess kurtosis of -6/5/4, where a normal distribution has 0.
        assert float((values / values.std()).pow(4).mean()) - 3 == pytest.approx(-0.3, abs=0.05)
    assert torch.equal(weights["norm.weight"], torch.ones(64))


def test_without_depth_scaling_the_same_values_are_larger_by_the_root_of_the_depth() -> None:
    scaled = small_spec()
    flat = scaled.model_copy(update={"model": scaled.model.model_copy(update={"depth_scaled_init": False})})
    depth = 2 * scaled.model.layers
    for stage in range(scaled.layout.stages):
        weights, larger = initial_weights(scaled, stage), initial_weights(flat, stage)
        for name, values in weights.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                torch.testing.assert_close(values * math.sqrt(depth), larger[name])
            else:
                assert torch.equal(values, larger[name]), name
