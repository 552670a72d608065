"""Sketches: linear, comparable, and bound to the op's name."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from iota.compute.sketch import SketchKey, project, sketch, to_sketch

KEY = SketchKey(run="ab" * 32, stage=1, kind="forward", epoch=2, step=3, index=4)


def vector(n: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 1_100_000])
def test_a_sketch_is_linear(n: int) -> None:
    x, y = vector(n), vector(n, 1)
    both = np.array(sketch(2 * x + y, KEY))
    assert np.allclose(both, 2 * np.array(sketch(x, KEY)) + np.array(sketch(y, KEY)), rtol=1e-4, atol=1e-5)


def test_a_sketch_is_the_signed_sum_over_the_root_of_the_count() -> None:
    n = 5000
    columns = [project({"": one_hot(n, i)}, KEY) for i in (0, 4095, 4096, n - 1)]
    assert all(torch.equal(c.abs(), torch.ones(16, dtype=torch.float64)) for c in columns)
    x = 3 * one_hot(n, 0) - 2 * one_hot(n, 4096)
    assert np.allclose(sketch(x, KEY), (3 * columns[0] - 2 * columns[2]) / math.sqrt(n))


def one_hot(n: int, i: int) -> torch.Tensor:
    x = torch.zeros(n)
    x[i] = 1
    return x


def test_the_mean_square_is_that_of_the_vector() -> None:
    x = vector(20_000)
    keys = [dataclasses.replace(KEY, index=i) for i in range(64)]
    squares = np.mean([np.square(sketch(x, key)) for key in keys])
    assert squares == pytest.approx(float(x.square().mean()), rel=0.15)


def test_relative_error_of_sketches_follows_that_of_vectors() -> None:
    x = vector(50_000)
    near = np.array(sketch(x + 1e-3 * vector(50_000, 1), KEY))
    far = np.array(sketch(vector(50_000, 2), KEY))
    mine = np.array(sketch(x, KEY))
    assert np.linalg.norm(near - mine) / np.linalg.norm(mine) < 5e-3
    assert np.linalg.norm(far - mine) / np.linalg.norm(mine) > 0.3


@pytest.mark.parametrize(
    "change",
    [{"run": "cd" * 32}, {"stage": 0}, {"kind": "backward"}, {"epoch": 0}, {"step": 0}, {"index": 0}],
)
def test_every_part_of_the_name_changes_the_signs(change: dict[str, object]) -> None:
    x = vector(100)
    assert sketch(x, KEY) != sketch(x, dataclasses.replace(KEY, **change))  # type: ignore[arg-type]


def test_threads_change_no_bit() -> None:
    x = vector(3_000_000)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = sketch(x, KEY)
        torch.set_num_threads(2)
        assert sketch(x, KEY) == one
    finally:
        torch.set_num_threads(before)


def test_a_projection_of_a_difference_is_exact_enough_for_small_changes() -> None:
    old = {"a": vector(10_000), "b": vector(300, 1)}
    new = {name: w + 1e-5 * vector(w.numel(), 2) for name, w in old.items()}
    change = {name: new[name].double() - old[name].double() for name in old}
    found = to_sketch(project(new, KEY) - project(old, KEY), 10_300)
    assert np.allclose(found, to_sketch(project(change, KEY), 10_300), rtol=1e-6)
