"""A program: does with an exported model what users do, and writes what came of each to WORK/found.json.

It runs alone, with any version of `transformers`: `exported_use.py MODEL WORK [FOLDER_FOR_SYS_PATH]`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if len(sys.argv) > 3:
    sys.path.insert(0, sys.argv[3])

import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaForCausalLM,
    __version__,
    pipeline,
)

CODE: dict[str, Any] = {"trust_remote_code": True}
GREEDY: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False}
PROMPTS = ["a b", "some longer words here"]
FOUND: dict[str, Any] = {"version": __version__}


def use(check: Callable[[], Any]) -> None:
    """Record what a check returns, or the error that it raises, under its name."""
    try:
        FOUND[check.__name__] = check()
    except Exception as error:  # noqa: BLE001 - the test that reads it fails with it
        FOUND[check.__name__] = f"{type(error).__name__}: {error}"


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference of two tensors of one shape."""
    assert a.shape == b.shape, (a.shape, b.shape)
    return float((a.float() - b.float()).abs().max())


def main(folder: str, work: Path) -> None:
    """All checks, in one process that cannot import this package."""
    sys.modules["iota"] = None  # type: ignore[assignment]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(folder, **CODE).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    anchored = getattr(model.config, "boundary_needs_ids", False)
    single = [tokenizer(p, return_tensors="pt") for p in PROMPTS]
    ids = single[1]["input_ids"]
    with torch.no_grad():
        logits = model(ids).logits
    FOUND["logits"] = logits.tolist()
    FOUND["ids"] = ids.tolist()

    def class_name() -> str:
        return type(model).__name__

    def batch(side: str) -> float:
        tokenizer.padding_side = side
        inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True)
        with torch.no_grad():
            found = model(**inputs).logits
        worst = 0.0
        for row, alone in enumerate(single):
            length = alone["input_ids"].shape[1]
            part = found[row, -length:] if side == "left" else found[row, :length]
            with torch.no_grad():
                worst = max(worst, gap(part, model(alone["input_ids"]).logits[0]))
        tokenizer.padding_side = "left"
        return worst

    def left_padding() -> float:
        return batch("left")

    def right_padding() -> float:
        return batch("right")

    def side() -> str:
        return str(AutoTokenizer.from_pretrained(folder).padding_side)

    def batch_generation() -> bool:
        together = model.generate(**tokenizer(PROMPTS, return_tensors="pt", padding=True), **GREEDY)
        alone = [model.generate(**inputs, **GREEDY)[0, -6:].tolist() for inputs in single]
        return bool([row[-6:].tolist() for row in together] == alone)

    def text_pipeline() -> list[int]:
        made = pipeline("text-generation", model=model, tokenizer=tokenizer)
        texts = made(PROMPTS, batch_size=2, return_full_text=False, **GREEDY)
        return [len(texts), len(made("", **GREEDY))]

    def empty_prompt() -> list[Any]:
        made = model.generate(**GREEDY)
        return [made.shape[0], int(made[0, 0]), made.shape[1]]

    def caches() -> bool:
        made = [
            model.generate(ids, **GREEDY, **options).tolist()
            for options in ({}, {"use_cache": False}, {"cache_implementation": "static"})
        ]
        return bool(made[0] == made[1] == made[2])

    def beams() -> list[int]:
        return list(model.generate(ids, num_beams=3, num_return_sequences=2, **GREEDY).shape)

    def bf16() -> float:
        half = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, **CODE)
        assert half.dtype == torch.bfloat16
        half.generate(ids, **GREEDY)
        with torch.no_grad():
            return gap(half(ids).logits, logits) / float(logits.abs().max())

    def save_and_reload() -> float:
        model.save_pretrained(work / "saved")
        again = AutoModelForCausalLM.from_pretrained(work / "saved", **CODE).eval()
        with torch.no_grad():
            return gap(again(ids).logits, logits)

    def hidden_states() -> list[Any]:
        with torch.no_grad():
            states = model(ids, output_hidden_states=True).hidden_states
        return [
            len(states),
            gap(model.lm_head(states[-1]), logits),
            gap(states[0], model.model.embed_tokens(ids)),
        ]

    def attentions() -> int:
        model.set_attn_implementation("eager")
        with torch.no_grad():
            found = model(ids, output_attentions=True).attentions
        model.set_attn_implementation("sdpa")
        return len(found)

    def embeddings_in() -> list[Any]:
        embeds = model.get_input_embeddings()(ids).detach()
        more: dict[str, Any] = {"token_ids": ids} if anchored else {}
        with torch.no_grad():
            found = gap(model(inputs_embeds=embeds, **more).logits, logits)
        made = model.generate(inputs_embeds=embeds, **more, **GREEDY)
        return [found, bool(made[0, -6:].tolist() == model.generate(ids, **GREEDY)[0, -6:].tolist())]

    def embeddings_alone() -> str:
        try:
            model(inputs_embeds=model.get_input_embeddings()(ids))
        except ValueError as error:
            return str(error)
        return ""

    def resize() -> list[Any]:
        larger = AutoModelForCausalLM.from_pretrained(folder, **CODE).eval()
        size = larger.config.vocab_size
        larger.resize_token_embeddings(size + 3, mean_resizing=False)
        with torch.no_grad():
            found = gap(larger(ids).logits[..., :size], logits)
            larger(torch.tensor([[size + 2, 1]]))
        larger.save_pretrained(work / "resized")
        again = AutoModelForCausalLM.from_pretrained(work / "resized", **CODE)
        return [found, again(torch.tensor([[size + 2]])).logits.shape[-1] - size]

    def base_model() -> float:
        base = AutoModel.from_pretrained(folder, **CODE).eval()
        with torch.no_grad():
            return gap(model.lm_head(base(ids).last_hidden_state), logits)

    def training_step() -> list[Any]:
        student = AutoModelForCausalLM.from_pretrained(folder, **CODE).train()
        student.gradient_checkpointing_enable()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        losses = []
        for _ in range(2):
            loss = student(input_ids=ids, labels=ids).loss
            loss.backward()
            losses.append(float(loss.detach()))
            missing = [n for n, p in student.named_parameters() if p.grad is None]
            optimizer.step()
            optimizer.zero_grad()
        return [losses[1] < losses[0], missing]

    def plain_llama() -> float:
        llama = LlamaForCausalLM.from_pretrained(folder).eval()
        with torch.no_grad():
            return gap(llama(ids).logits, logits)

    def special_text() -> list[int]:
        return list(tokenizer(f"a{tokenizer.eos_token}")["input_ids"])

    for check in (
        class_name, side, left_padding, right_padding, batch_generation, text_pipeline, empty_prompt, caches,
        beams, bf16, save_and_reload, hidden_states, attentions, embeddings_in, embeddings_alone, resize,
        base_model, training_step, special_text, plain_llama,
    ):  # fmt: skip
        use(check)
    (work / "found.json").write_text(json.dumps(FOUND))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
