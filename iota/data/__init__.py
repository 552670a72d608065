"""Tokenized data: preparing shards from text, and reading verified sequences from them.

Numpy only; `datasets`, `transformers` and `pyarrow` are imported where a source or tokenizer needs them.
"""

from iota.data.blocks import DamagedShard
from iota.data.directory import DirectoryReader, directory_fetch, read_manifest
from iota.data.documents import Document, Source
from iota.data.manifest import (
    MANIFEST_NAME,
    DataError,
    Manifest,
    Shard,
    TokenDtype,
    TokenizerInfo,
    manifest_id,
    parse_manifest,
)
from iota.data.packer import Progress
from iota.data.prepare import HELDOUT_TOKENS, SHARD_TOKENS, prepare
from iota.data.publish import publish
from iota.data.reader import Fetch, ShardReader
from iota.data.sample import sample_index, sequence_indices
from iota.data.sources import open_source
from iota.data.tokenizers import Tokenizer, open_tokenizer, write_hf_tokenizer

__all__ = [
    "HELDOUT_TOKENS",
    "MANIFEST_NAME",
    "SHARD_TOKENS",
    "DamagedShard",
    "DataError",
    "DirectoryReader",
    "Document",
    "Fetch",
    "Manifest",
    "Progress",
    "Shard",
    "ShardReader",
    "Source",
    "TokenDtype",
    "Tokenizer",
    "TokenizerInfo",
    "directory_fetch",
    "manifest_id",
    "open_source",
    "open_tokenizer",
    "parse_manifest",
    "prepare",
    "publish",
    "read_manifest",
    "sample_index",
    "sequence_indices",
    "write_hf_tokenizer",
]
