"""The block copies that replace loops over bytes in the iroh package."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import pytest
from iroh import iroh_ffi

from iota.wire import iroh_buffers


def test_upstreams_functions_are_those_that_the_block_copies_were_written_for() -> None:
    assert iroh_buffers.sources(iroh_ffi) == (iroh_buffers.KNOWN_WRITE, iroh_buffers.KNOWN_READ), (
        "iroh's buffer functions have changed. Look at _UniffiRustBufferBuilder.write and"
        " _UniffiRustBufferStream.read in iroh/iroh_ffi.py: if they copy blocks by now, remove"
        " iota/wire/iroh_buffers.py; if they still loop over bytes, adapt it and its known digests."
    )


@pytest.fixture
def patched(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The package with block copies, for one test."""
    for owner, name in (
        (iroh_ffi._UniffiRustBufferBuilder, "write"),
        (iroh_ffi._UniffiRustBufferStream, "read"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    assert iroh_buffers.apply(iroh_ffi)
    return iroh_ffi


@pytest.mark.parametrize("made", [bytes, bytearray, lambda data: memoryview(bytearray(data))[3:]])
def test_what_is_written_in_blocks_is_read_as_upstream_reads_it(patched: ModuleType, made) -> None:
    values = [bytes(range(256)) * count for count in (0, 1, 5, 4001)]
    with patched._UniffiRustBuffer.alloc_with_builder() as builder:
        for value in values:
            patched._UniffiFfiConverterBytes.write(made(value), builder)
        buffer = builder.finalize()
    assert buffer.data[: buffer.len] == b"".join(
        len(made(value)).to_bytes(4, "big") + bytes(made(value)) for value in values
    )
    with buffer.consume_with_stream() as stream:
        for value in values:
            assert patched._UniffiFfiConverterBytes.read(stream) == bytes(made(value))


def test_a_read_past_the_end_is_refused(patched: ModuleType) -> None:
    with patched._UniffiRustBuffer.alloc_with_builder() as builder:
        builder.write(b"12345")
        buffer = builder.finalize()
    stream = patched._UniffiRustBufferStream.from_rust_buffer(buffer)
    for size in (6, -1):
        with pytest.raises(patched.InternalError):
            stream.read(size)
    assert stream.read(5) == b"12345"
    buffer.free()


@pytest.mark.parametrize("missing", ["_UniffiRustBufferBuilder", "_UniffiRustBufferStream", "write"])
def test_functions_that_are_not_known_are_left_alone(missing: str) -> None:
    class Changed:
        def write(self, value: bytes) -> None:
            """Another one."""

        read = write

    module = SimpleNamespace(_UniffiRustBufferBuilder=Changed, _UniffiRustBufferStream=Changed)
    if missing != "write":
        delattr(module, missing)
    before = Changed.write
    assert not iroh_buffers.apply(module)
    assert Changed.write is before
