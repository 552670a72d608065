"""The model card: README.md of an export."""

from __future__ import annotations

import re

from iota.compute.heldout_loss import HeldoutLoss
from iota.console.counts import counted
from iota.console.redaction import printable
from iota.data.manifest import Manifest
from iota.model.exported_config import TRANSFORMERS, is_plain_llama
from iota.model.layout import count, stage_shapes
from iota.spec import RunSpec

_NO_LICENSE = "unknown"


def model_card(
    spec: RunSpec, epoch: int, manifest: Manifest, heldout: HeldoutLoss | None, license_name: str | None
) -> str:
    """README.md, with the front matter that model hubs read. `epoch` is the number of merged epochs."""
    model, schedule = spec.model, spec.schedule
    planned = epoch * schedule.steps * schedule.microbatches * spec.data.tokens
    front = (
        f"license: {license_name or _NO_LICENSE}\nlibrary_name: transformers\npipeline_tag: text-generation"
    )
    rows = [
        ("run", f"`{spec.id}` ({spec.name})"),
        ("parameters", f"{count(stage_shapes(model, (model.layers,), 0)):,} without codecs, fp32"),
        (
            "architecture",
            f"Llama: {counted(model.layers, 'layer')}, width {model.hidden_size},"
            f" {counted(model.heads, 'head')} ({model.kv_heads} for keys and values),"
            f" vocabulary {model.vocab_size},"
            f" sequences of {counted(spec.data.sequence_length, 'token')}",
        ),
        ("boundaries", _boundaries(spec)),
        (
            "trained for",
            f"{epoch} of {counted(schedule.epochs, 'epoch')}, {counted(planned, 'token')} as planned",
        ),
        ("data", f"{manifest.source}, manifest `{spec.data.manifest}`"),
        ("tokenizer", f"{manifest.tokenizer.name}, `{manifest.tokenizer.digest}`"),
        ("held-out loss", str(heldout) if heldout is not None else "not measured"),
        ("license", license_name or "not stated: ask the owner of the run"),
    ]
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows)
    return f"---\n{front}\ntags: [iota]\n---\n\n# {spec.name}\n\n{_how(spec)}\n| | |\n|---|---|\n{table}\n"


def _cell(text: str) -> str:
    """`text` in a cell of the table: names of data and tokenizers may hold HTML, images and links."""
    return re.sub(r"[|<>\[\]!&]", r"\\\g<0>", printable(text))


def _boundaries(spec: RunSpec) -> str:
    stages, wire = spec.layout.stages, spec.boundary.wire.value
    if stages == 1:
        return "none: one stage"
    if not is_plain_llama(spec):
        return f"{stages - 1}, by the codec `{spec.boundary.codec}`, rounded to {wire}; part of the model"
    note = (
        "" if wire == "fp32" else f"; training rounded the activations there to {wire}, this model does not"
    )
    return f"{stages - 1}, uncompressed{note}"


def _how(spec: RunSpec) -> str:
    trust = "" if is_plain_llama(spec) else ", trust_remote_code=True"
    first, below = (".".join(map(str, version)) for version in TRANSFORMERS)
    code = "" if is_plain_llama(spec) else " It carries its own code, which refuses other versions."
    return (
        f"A language model trained by IOTA, for `transformers>={first},<{below}`.{code}\n\n"
        "```python\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        f"model = AutoModelForCausalLM.from_pretrained(FOLDER{trust})\n"
        f"tokenizer = AutoTokenizer.from_pretrained(FOLDER{trust})\n"
        "```\n\n"
        f"{_documents(spec)}"
    )


def _documents(spec: RunSpec) -> str:
    if spec.data.mask_documents:
        return (
            "Attention in training stayed inside a document, which began with the EOS before it. None is\n"
            "added: begin a prompt with one, and put one document into a sequence.\n"
        )
    return (
        "A document in training ended in an EOS and began with nothing: no BOS is added, and an\n"
        "empty prompt begins after an EOS.\n"
    )
