"""`data.mask_documents`: what a spec must say, which stages read tokens, where documents begin."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iota.compute.fingerprint import fingerprint
from iota.data.passes import check_data
from iota.data.samples import needs_tokens
from iota.model.documents import attention_within, document_numbers
from iota.model.narrowed import MAX_VOCABULARY, narrowed
from iota.model.proposal import make_spec
from iota.spec import RunSpec
from iota.spec.draft import from_assignments
from tests.support.data_sets import prepare_made_up
from tests.support.small_runs import MASKED, small_run

NONCE = "ab" * 32
ON = from_assignments(["data.mask_documents=true"])


def test_a_made_spec_has_the_eos_of_its_data(tmp_path: Path) -> None:
    manifest = prepare_made_up(tmp_path)
    ids = manifest.tokenizer
    spec = make_spec(ON, manifest.content_digest(), ids.vocab_size, manifest.heldout.tokens, ids.eos_id)
    assert (spec.data.mask_documents, spec.data.eos_id) == (True, ids.eos_id)
    check_data(spec, manifest)
    off = make_spec({}, manifest.content_digest(), ids.vocab_size, manifest.heldout.tokens, ids.eos_id)
    assert off.data.eos_id is None
    check_data(off, manifest)
    other = spec.model_copy(update={"data": spec.data.model_copy(update={"eos_id": 10})})
    with pytest.raises(ValueError, match=r"data\.eos_id is 10, and documents of this data end in 256"):
        check_data(other, manifest)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"mask_documents": True}, r"data\.eos_id is given where data\.mask_documents is true"),
        ({"eos_id": 2}, r"data\.eos_id is given where data\.mask_documents is true"),
        ({"mask_documents": True, "eos_id": 61}, r"data\.eos_id 61 is outside the vocabulary"),
        ({"mask_documents": "perhaps", "eos_id": 2}, "mask_documents"),
    ],
)
def test_a_spec_that_cannot_separate_documents_is_refused(data: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        small_run(data=data)


def test_what_is_neither_true_nor_false_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match=r"data\.mask_documents"):
        make_spec(from_assignments(["data.mask_documents=perhaps"]), "0" * 64, 257)


def test_every_stage_reads_tokens_of_masked_documents() -> None:
    plain, masked = (small_run(boundary={"codec": "identity"}, data=data) for data in ({}, MASKED))
    assert [needs_tokens(plain, stage) for stage in range(3)] == [True, False, True]
    assert [needs_tokens(masked, stage) for stage in range(3)] == [True, True, True]


def test_a_document_begins_with_the_eos_before_it() -> None:
    ids = torch.tensor([[5, 6, 2, 7, 2, 2, 8], [2, 5, 5, 5, 5, 5, 2]])
    expected = torch.tensor([[0, 0, 1, 1, 2, 3, 3], [1, 1, 1, 1, 1, 1, 2]], dtype=torch.int32)
    assert torch.equal(document_numbers(ids, 2), expected)


def test_without_an_eos_attention_is_that_of_the_sequences() -> None:
    q, k, v = torch.randn(2, 4, 9, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mixed = attention_within(torch.zeros(2, 9, dtype=torch.int32))(q, k, v)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    torch.testing.assert_close(mixed, expected)


def test_a_fingerprint_computes_masked_documents() -> None:
    data = {"sequence_length": 300, "sequences": 1}
    plain, masked = (small_run(boundary={"codec": "identity"}, data=data | more) for more in ({}, MASKED))
    for stage in range(3):
        found = [fingerprint(spec, stage, "cpu", NONCE) for spec in (masked, masked, plain)]
        assert found[0] == found[1]
        assert found[0].forward != found[2].forward


def test_a_narrowed_run_separates_documents_by_a_token_that_it_has() -> None:
    given = ["model.preset=llama-1b", "data.mask_documents=true"]
    spec: RunSpec = make_spec(from_assignments(given), "0" * 64, 128_256, eos_id=128_001)
    assert narrowed(spec).data.eos_id == MAX_VOCABULARY - 1
