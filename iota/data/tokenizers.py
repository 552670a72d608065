"""Tokenizers: the built-in `bytes`, and any fast tokenizer of Hugging Face."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from iota.console.watch import Watch
from iota.hub import asking, model_folder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BYTES = "bytes"
EOS_TEXT = "<|endoftext|>"
_CHOICES = "give 'bytes', a folder with a tokenizer.json, or a name on the Hugging Face Hub"
_FILES = ("*.json", "*.txt", "*.model", "*.jinja")
"""What tokenizers are read from. Weights have other suffixes."""

Ids = npt.NDArray[np.uint32]


class Tokenizer(Protocol):
    """Text to token ids. Text that spells a special token, such as EOS, is encoded as ordinary text."""

    @property
    def name(self) -> str:
        """Name for the manifest, without a local path."""
        ...

    @property
    def vocab_size(self) -> int:
        """One more than the largest id."""
        ...

    @property
    def eos_id(self) -> int:
        """Id that ends each document."""
        ...

    @property
    def definition(self) -> bytes:
        """Everything that decides the ids of a text; `write_tokenizer` makes a folder of it."""
        ...

    @property
    def digest(self) -> str:
        """BLAKE3 (hex) of `definition`."""
        ...

    def encode(self, text: str) -> Ids:
        """Ids of `text`, shape (tokens,)."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """`encode` for each text, in parallel if the implementation can."""
        ...


def open_tokenizer(name: str) -> Tokenizer:
    """The tokenizer `name`: `bytes`, a folder (or its tokenizer.json), or a name on the Hub.

    Raises:
        ValueError: if it does not exist, or has no EOS or no fast implementation.
    """
    return ByteTokenizer() if name == BYTES else _open_hugging_face(name)


class ByteTokenizer:
    """Ids 0 to 255 are the bytes of UTF-8, 256 is EOS."""

    name = BYTES
    eos_id = 256
    vocab_size = 257
    definition = b"iota/tokenizer/bytes/1"
    digest = blake3(definition).hexdigest()

    def encode(self, text: str) -> Ids:
        return np.frombuffer(text.encode(), dtype=np.uint8).astype(np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        return [self.encode(text) for text in texts]


class HuggingFaceTokenizer:
    """A fast tokenizer of `transformers`, without padding, truncation and special tokens."""

    def __init__(self, name: str, tokenizer: PreTrainedTokenizerFast) -> None:
        self.name = name
        self._tokenizer = tokenizer
        self._backend = tokenizer.backend_tokenizer
        self._backend.no_padding()
        self._backend.no_truncation()
        self._backend.encode_special_tokens = True
        self.eos_id = int(tokenizer.eos_token_id)
        self.vocab_size = max(self._backend.get_vocab(with_added_tokens=True).values()) + 1
        self.definition = f"{self.eos_id}\n{self._backend.to_str()}".encode()
        self.digest = blake3(self.definition).hexdigest()

    def __reduce__(self) -> tuple[type[HuggingFaceTokenizer], tuple[str, PreTrainedTokenizerFast]]:
        # A pickled backend forgets `encode_special_tokens`: what is read back is set up anew.
        return HuggingFaceTokenizer, (self.name, self._tokenizer)

    def encode(self, text: str) -> Ids:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encodings = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.uint32) for encoding in encodings]


def _open_hugging_face(name: str) -> HuggingFaceTokenizer:
    from transformers import AutoTokenizer

    path = Path(name)
    folder = path.parent if path.name == "tokenizer.json" else path
    local = folder.is_dir()
    if not local:
        folder = Watch(f"tokenizer {name}").persevere_blocking(lambda: _fetched(name))
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"tokenizer {name!r} cannot be read ({str(error).splitlines()[0]}): {_CHOICES}"
        ) from error
    if not tokenizer.is_fast:
        raise ValueError(f"tokenizer {name!r} has no tokenizer.json: choose one with a fast implementation")
    if tokenizer.eos_token_id is None:
        raise ValueError(f"tokenizer {name!r} has no EOS token: set eos_token in its tokenizer_config.json")
    # Local paths stay out of the manifest; the digest identifies the tokenizer.
    return HuggingFaceTokenizer(folder.resolve().name if local else name, tokenizer)


def _fetched(name: str) -> Path:
    """The folder of a tokenizer on the Hub: all of its files or none.

    `transformers` would take a file that the Hub fails to give for one that is not there.
    """
    with asking(f"tokenizer {name!r}", _CHOICES):
        return model_folder(name, None, _FILES)
