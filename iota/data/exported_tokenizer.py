"""Makes the tokenizer of a data set loadable by `transformers`, with the ids that training had.

A data set keeps its tokenizer's definition beside its manifest, whose digest for it covers the file. A
definition is that of `bytes`, or the id of EOS, a newline and the tokenizer.json of a fast tokenizer.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from iota.data.manifest import DataError, Manifest, manifest_id
from iota.data.tokenizers import EOS_TEXT, ByteTokenizer
from iota.files import write_whole
from iota.objects import tokenizer_key

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MAX_DEFINITION_BYTES = 256 << 20
"""Bound of a definition; those of vocabularies of 260,000 have about 33 MB."""


def keep_definition(out: Path, manifest: Manifest, definition: bytes) -> None:
    """Write the definition beside the manifest in `out`, the folder of a preparation, if it is not there."""
    path = out / tokenizer_key(manifest_id(manifest))
    if not path.exists():
        write_whole(path, definition)


def write_tokenizer(definition: bytes, out: Path, max_length: int | None = None) -> None:
    """Write a folder from which `transformers.AutoTokenizer` loads a tokenizer with the ids of training.

    It adds no token to a text (training did not), encodes text that spells a special token as text, and pads
    with EOS on the left, as generation needs it. `max_length` is the longest sequence in tokens.

    Raises:
        DataError: `definition` defines no tokenizer.
    """
    backend, eos_id = _open(definition)
    eos_text = backend.id_to_token(eos_id)
    if eos_text is None:
        raise DataError(f"the tokenizer has no token for its EOS, {eos_id}")
    backend.encode_special_tokens = True
    backend.post_processor = None  # a template would put BOS before a text
    out.mkdir(parents=True, exist_ok=True)
    backend.save(str(out / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos_text,
        "pad_token": eos_text,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "model_input_names": ["input_ids", "attention_mask"],
        **({} if max_length is None else {"model_max_length": max_length}),
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _open(definition: bytes) -> tuple[Backend, int]:
    """The tokenizer and the id of EOS."""
    from tokenizers import Tokenizer as Backend

    if definition == ByteTokenizer.definition:
        return _byte_backend(), ByteTokenizer.eos_id
    eos, _, text = definition.partition(b"\n")
    if not (eos.isdigit() and len(eos) < 10):
        raise DataError("this is no definition of a tokenizer")
    try:
        return Backend.from_str(text.decode()), int(eos)
    except Exception as error:  # the library raises no narrower class
        raise DataError(f"the tokenizer cannot be read ({error})") from error


def _byte_backend() -> Backend:
    """A byte-level BPE without merges: ids 0 to 255 are the bytes, 256 is EOS."""
    from tokenizers import AddedToken, decoders, models, pre_tokenizers
    from tokenizers import Tokenizer as Backend

    vocabulary = {letter: byte for byte, letter in enumerate(_byte_letters())}
    vocabulary[EOS_TEXT] = ByteTokenizer.eos_id
    backend = Backend(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(EOS_TEXT, special=True, normalized=False)])
    return backend


def _byte_letters() -> list[str]:
    """The character that byte-level BPEs write for each byte (Radford et al., GPT-2, 2019).

    Printable Latin-1 characters represent themselves; the other bytes map to code points from 256 on.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
