"""Tokenized data: preparing shards from text, and reading verified sequences from them.

Imports no torch. `datasets`, `transformers` and `pyarrow` are slow to import and are loaded on use.
"""

from iota.data.blocks import DamagedShard
from iota.data.directory import DirectoryReader, directory_fetch, prepared_ids, read_manifest
from iota.data.documents import Document, Source
from iota.data.heldout import Target
from iota.data.job import Job
from iota.data.manifest import DataError, Manifest, TokenDtype, manifest_id, parse_manifest
from iota.data.packer import PackProgress
from iota.data.passes import passes
from iota.data.prepare import prepare
from iota.data.publish import publish
from iota.data.reader import ShardReader
from iota.data.rows import RowRules
from iota.data.sample import sample_index, sequence_indices
from iota.data.sources import Weighted, open_source, open_sources
from iota.data.tokenizers import Tokenizer, open_tokenizer

__all__ = [
    "DamagedShard",
    "DataError",
    "DirectoryReader",
    "Document",
    "Job",
    "Manifest",
    "PackProgress",
    "RowRules",
    "ShardReader",
    "Source",
    "Target",
    "TokenDtype",
    "Tokenizer",
    "Weighted",
    "directory_fetch",
    "manifest_id",
    "open_source",
    "open_sources",
    "open_tokenizer",
    "parse_manifest",
    "passes",
    "prepare",
    "prepared_ids",
    "publish",
    "read_manifest",
    "sample_index",
    "sequence_indices",
]
