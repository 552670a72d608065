"""The manifest: its id, and what it refuses to be."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3
from pydantic import ValidationError

from iota.data import DataError, Manifest, TokenDtype, manifest_id, parse_manifest
from tests.support.data_sets import data_folder, prepare_made_up


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    out = tmp_path_factory.mktemp("out")
    return out, prepare_made_up(out)


def test_the_id_is_the_digest_of_the_file(prepared: tuple[Path, Manifest]) -> None:
    out, manifest = prepared
    raw = (data_folder(out, manifest) / "manifest.json").read_bytes()
    assert manifest_id(manifest) == blake3(raw).hexdigest()
    assert parse_manifest(raw, manifest_id(manifest)) == manifest


def test_a_manifest_with_another_id_is_refused(prepared: tuple[Path, Manifest]) -> None:
    _, manifest = prepared
    other = manifest.model_copy(update={"source": "other"})
    with pytest.raises(DataError, match="not"):
        parse_manifest(other.canonical(), manifest_id(manifest))


@pytest.mark.parametrize("raw", [b"", b"{}", b"[1]", b"\xff"])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(DataError, match="no data manifest"):
        parse_manifest(raw, "0" * 64)


def test_shards_that_are_not_in_order_are_refused(prepared: tuple[Path, Manifest]) -> None:
    _, manifest = prepared
    swapped = manifest.model_dump(mode="json")
    swapped["shards"][0], swapped["shards"][1] = swapped["shards"][1], swapped["shards"][0]
    with pytest.raises(ValidationError, match="in order"):
        Manifest.model_validate(swapped)


def test_an_eos_outside_the_vocabulary_is_refused(prepared: tuple[Path, Manifest]) -> None:
    _, manifest = prepared
    wrong = manifest.model_dump(mode="json")
    wrong["tokenizer"]["eos_id"] = wrong["tokenizer"]["vocab_size"]
    with pytest.raises(ValidationError, match="outside the vocabulary"):
        Manifest.model_validate(wrong)


@pytest.mark.parametrize(
    ("vocab_size", "dtype"), [(257, "uint16"), (65_536, "uint16"), (65_537, "uint32"), (128_256, "uint32")]
)
def test_ids_take_two_bytes_where_they_fit(vocab_size: int, dtype: str) -> None:
    assert TokenDtype.holding(vocab_size).value == dtype


def test_reading_data_imports_none_of_the_heavy_libraries() -> None:
    code = (
        "import sys, iota.data; iota.data.open_tokenizer('bytes').encode('x');"
        " print([m for m in ('torch', 'transformers', 'datasets', 'pyarrow', 'boto3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_manifest_of_version_1_keeps_its_id() -> None:
    shard = {"tokens": 1000, "digest": "ab" * 32, "index_digest": "cd" * 32}
    document = {
        "version": 1,
        "source": "stdlib π",
        "tokenizer": {"name": "bytes", "digest": "ab" * 32, "vocab_size": 257, "eos_id": 256},
        "dtype": "uint16",
        "shards": [shard | {"name": f"shard-0000{n}", "tokens": 1000 + n} for n in range(2)],
    }
    identity = "cd38c0ef38cb2c09fec441d79225dee71bd7a6bcc311d3d0c7afc8f93e94fcd9"
    manifest = parse_manifest(json.dumps(document).encode(), identity)
    assert (manifest.sources, manifest.duplicates) == ((), 0)
