"""Tokenizers: ids, digests, and the same ids from `transformers` after saving."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from iota.data import manifest_id, open_tokenizer, prepare
from iota.data.exported_tokenizer import write_tokenizer
from iota.data.manifest import DataError
from iota.data.tokenizers import EOS_TEXT
from iota.objects import tokenizer_key
from tests.support.data_sets import MadeUp, made_up_job

TEXTS = [
    "",
    "hello  world ,\n\n ' t don 't",
    "é€😀\x00\x01\x7f\xad\u2028 \t",
    EOS_TEXT,
    f"a {EOS_TEXT} b",
    "\r\n  leading and trailing  ",
]


@pytest.fixture(scope="module")
def bytes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bytes")
    write_tokenizer(open_tokenizer("bytes").definition, out)
    return out


@pytest.fixture(scope="module")
def exported(bytes_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(bytes_folder))


def train_bpe(folder: Path, eos: bool = True, bos: bool = False) -> Path:
    """A small real BPE in a Hugging Face folder, trained here; with `bos` it puts <s> before each text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[EOS_TEXT, "<s>"] if bos else [EOS_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(["the cat sat on the mat and the dog sat on the log"] * 20, trainer)
    options = {"eos_token": EOS_TEXT} if eos else {}
    if bos:
        options["bos_token"] = "<s>"
        backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(tokenizer_object=backend, **options).save_pretrained(str(folder))
    return folder


def test_bytes_are_their_own_ids() -> None:
    tokenizer = open_tokenizer("bytes")
    assert tokenizer.encode("aé").tolist() == [97, 0xC3, 0xA9]
    assert (tokenizer.eos_id, tokenizer.vocab_size) == (256, 257)


@pytest.mark.parametrize("text", TEXTS)
def test_the_exported_bytes_tokenizer_gives_the_same_ids_and_the_text_back(exported: Any, text: str) -> None:
    ids = exported(text)["input_ids"]
    assert ids == open_tokenizer("bytes").encode(text).tolist()
    assert exported.decode(ids) == text


@given(text=st.text(max_size=200))
@settings(max_examples=100, deadline=None)
def test_any_text_survives_the_exported_bytes_tokenizer(exported: Any, text: str) -> None:
    ids = exported(text)["input_ids"]
    assert ids == list(text.encode())
    assert exported.decode(ids) == text


def test_the_exported_bytes_tokenizer_knows_its_eos(exported: Any) -> None:
    assert (exported.eos_token_id, len(exported)) == (256, 257)
    assert exported.decode([104, 256, 105], skip_special_tokens=True) == "hi"


def test_the_exported_bytes_tokenizer_loads_beside_a_llamas_config(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig

    write_tokenizer(open_tokenizer("bytes").definition, tmp_path)
    LlamaConfig(vocab_size=257, hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        str(tmp_path)
    )
    assert AutoTokenizer.from_pretrained(str(tmp_path))(" aé")["input_ids"] == [32, 97, 0xC3, 0xA9]


def test_a_hugging_face_folder_opens_with_its_own_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = train_bpe(tmp_path / "bpe")
    ours, theirs = open_tokenizer(str(folder)), AutoTokenizer.from_pretrained(str(folder))
    text = "the cat sat"
    assert ours.encode(text).tolist() == theirs(text, add_special_tokens=False)["input_ids"]
    assert len(ours.encode(text)) < len(text)
    assert (ours.name, ours.eos_id, ours.vocab_size) == ("bpe", theirs.eos_token_id, len(theirs))
    assert ours.digest == open_tokenizer(str(folder / "tokenizer.json")).digest


def test_text_never_turns_into_an_eos(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(str(train_bpe(tmp_path)))
    assert tokenizer.eos_id not in tokenizer.encode(f"a {EOS_TEXT} b")


def test_a_batch_is_encoded_like_its_texts(tmp_path: Path) -> None:
    for tokenizer in (open_tokenizer("bytes"), open_tokenizer(str(train_bpe(tmp_path)))):
        for text, ids in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
            assert np.array_equal(ids, tokenizer.encode(text))


@pytest.mark.parametrize("text", [*TEXTS, "the cat <s> sat", "<s>"])
def test_an_exported_tokenizer_adds_nothing_and_takes_special_text_as_training_did(
    tmp_path: Path, text: str
) -> None:
    from transformers import AutoTokenizer

    trained = open_tokenizer(str(train_bpe(tmp_path / "bpe", bos=True)))
    write_tokenizer(trained.definition, tmp_path / "out")
    found = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert found(text)["input_ids"] == trained.encode(text).tolist()
    assert found(text).keys() == {"input_ids", "attention_mask"}
    assert (found.eos_token_id, found.pad_token_id, found.bos_token) == (trained.eos_id, trained.eos_id, None)


@pytest.mark.parametrize("definition", [b"", b"x\n{}", b"1\n{}", b"1", b"9" * 20 + b"\n{}", b"\xff\n"])
def test_bytes_that_define_no_tokenizer_are_refused(tmp_path: Path, definition: bytes) -> None:
    with pytest.raises(DataError):
        write_tokenizer(definition, tmp_path / "out")


def test_a_data_set_keeps_its_tokenizer_and_an_older_one_gets_it(tmp_path: Path) -> None:
    tokenizer = open_tokenizer(str(train_bpe(tmp_path / "bpe")))
    manifest = prepare(made_up_job(MadeUp(200), 10_000, 1_000, tokenizer), tmp_path)
    kept = tmp_path / tokenizer_key(manifest_id(manifest))
    assert blake3(kept.read_bytes()).hexdigest() == manifest.tokenizer.digest == tokenizer.digest
    kept.unlink()
    prepare(made_up_job(MadeUp(200), 10_000, 1_000, tokenizer), tmp_path)
    assert kept.read_bytes() == tokenizer.definition


def test_a_tokenizer_without_an_eos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="eos_token"):
        open_tokenizer(str(train_bpe(tmp_path, eos=False)))


@pytest.mark.parametrize("name", ["./no/such/folder", "bad name!"])
def test_a_tokenizer_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be read .*: give 'bytes', a folder"):
        open_tokenizer(name)


def test_an_empty_folder_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cannot be read .*: give 'bytes', a folder"):
        open_tokenizer(str(tmp_path))


def test_a_pickled_tokenizer_gives_the_same_ids_also_for_special_text(tmp_path: Path) -> None:
    first = open_tokenizer(str(train_bpe(tmp_path)))
    second = pickle.loads(pickle.dumps(first))
    for text in TEXTS:
        assert np.array_equal(first.encode(text), second.encode(text))
    assert second.digest == first.digest
