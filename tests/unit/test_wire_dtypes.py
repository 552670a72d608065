"""Wire dtypes: sizes, stated errors, and rounding inside autograd."""

from __future__ import annotations

import struct

import pytest
import torch

from iota.codec.errors import PayloadError
from iota.codec.wire_dtype import decode_wire, encode_wire, payload_tensor, round_wire, wire_size
from iota.compute.determinism import device_class
from iota.compute.finite import all_finite
from iota.reference.wire_round import wire_round
from iota.spec import WireDtype

SHAPE = (2, 5, 7)


def values(scale: float = 3.0) -> torch.Tensor:
    return scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def there_and_back(x: torch.Tensor, dtype: WireDtype) -> torch.Tensor:
    return decode_wire(encode_wire(x, dtype), SHAPE, dtype)


def test_fp32_is_exact() -> None:
    assert torch.equal(there_and_back(values(), WireDtype.FP32), values())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_bf16_errs_by_at_most_two_to_the_minus_eight_of_a_value(scale: float) -> None:
    x = values(scale)
    assert bool(((there_and_back(x, WireDtype.BF16) - x).abs() <= x.abs() * 2**-8).all())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_int8_errs_by_at_most_a_254th_of_the_tokens_largest_value(scale: float) -> None:
    x = values(scale)
    bound = x.abs().amax(-1, keepdim=True) / 254 * (1 + 1e-5)
    assert bool(((there_and_back(x, WireDtype.INT8) - x).abs() <= bound).all())


def test_int8_keeps_a_token_of_zeros() -> None:
    assert torch.equal(there_and_back(torch.zeros(SHAPE), WireDtype.INT8), torch.zeros(SHAPE))


@pytest.mark.parametrize("dtype", list(WireDtype))
def test_payload_has_the_size_that_the_shape_says(dtype: WireDtype) -> None:
    assert len(encode_wire(values(), dtype)) == wire_size(SHAPE, dtype)


@pytest.mark.parametrize("dtype", list(WireDtype))
@pytest.mark.parametrize("change", [-1, 1])
def test_another_size_is_refused(dtype: WireDtype, change: int) -> None:
    payload = encode_wire(values(), dtype)
    wrong = payload[:-1] if change < 0 else torch.cat([payload, payload[:1]])
    with pytest.raises(PayloadError):
        decode_wire(wrong, SHAPE, dtype)


@pytest.mark.parametrize("dtype", list(WireDtype))
def test_rounding_equals_encoding_and_decoding_to_the_bit(dtype: WireDtype) -> None:
    assert torch.equal(round_wire(values(), dtype), there_and_back(values(), dtype))


@pytest.mark.parametrize("dtype", list(WireDtype))
def test_autograd_rounds_values_and_gradients_as_the_wire_does(dtype: WireDtype) -> None:
    x, gradient = values().requires_grad_(), values(0.1)
    out = wire_round(x, dtype)
    (found,) = torch.autograd.grad(out, x, gradient)
    assert torch.equal(out, there_and_back(x.detach(), dtype))
    assert torch.equal(found, there_and_back(gradient, dtype))


def test_hostile_int8_scales_are_seen_as_not_finite() -> None:
    payload = encode_wire(torch.zeros(SHAPE), WireDtype.INT8)
    payload[-4:] = payload_tensor(b"\x00\x00\xc0\x7f")
    assert not all_finite(decode_wire(payload, SHAPE, WireDtype.INT8))


def test_a_payload_of_another_dtype_is_refused() -> None:
    with pytest.raises(PayloadError, match="int8"):
        decode_wire(encode_wire(values(), WireDtype.FP32).view(torch.int8), SHAPE, WireDtype.FP32)


def test_payloads_are_the_bytes_of_the_published_layout() -> None:
    x = torch.tensor([[[1.0, -2.0, 0.0], [0.0, 254.0, 127.0]]])
    fp32 = "0000803f000000c00000000000000000" + "00007e430000fe42"
    bf16 = "803f00c000000000" + "7e43fe42"
    int8 = "40810000" + "7f40" + struct.pack("<2f", 2 / 127, 2.0).hex()
    for dtype, expected in ((WireDtype.FP32, fp32), (WireDtype.BF16, bf16), (WireDtype.INT8, int8)):
        assert bytes(encode_wire(x, dtype).tolist()).hex() == expected


def test_received_bytes_become_memory_of_their_own() -> None:
    received = bytearray(b"\x01\x02")
    payload = payload_tensor(bytes(received))
    payload[0] = 9
    assert received == b"\x01\x02"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_value_is_seen(bad: float) -> None:
    x = values()
    x[1, 2, 3] = bad
    assert all_finite(values(), values())
    assert not all_finite(values(), x)


def test_opposite_infinities_do_not_cancel() -> None:
    x = values()
    x[0, 0, 0], x[0, 0, 1] = float("inf"), float("-inf")
    assert not all_finite(x)


def test_device_class_names_kernels_threads_and_version() -> None:
    one, two = device_class("cpu", 1), device_class("cpu", 2)
    assert one != two
    assert torch.__version__.split("+")[0] in one
