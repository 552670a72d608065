"""Audits of receipts that a stranger changed in any way that their form permits: each drawn one has a result.

A change replaces a value anywhere in the JSON of a miner's receipts, or in the headers of the frames that
they name, which are signed again, as who owns two stages can do. What the form refuses never reaches a
validator. The documents are made from the models, so new fields are changed too.
"""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from iota.identity.signatures import signing_bytes
from iota.protocol.receipts import OpKind, Receipt
from iota.wire.frame import DOMAIN
from tests.support.audited_runs import DEVICE, World
from tests.support.hostile_evidence import audited, hostile, rewrite, trained

Document = dict[str, Any]
Place = tuple[str | int, ...]
CHAIN = ("seq", "previous", "epoch")
"""What `rewrite` makes anew, and the epoch, without which a receipt is of another record."""
WAYS = ("value", "header", "repeat", "leave", "swap")
ODD = [
    None, True, "", 0, 1, 2, 3, 2**31 - 1, 2**53 - 1, -1, 0.5, 5e-324, 1.7e308, -1.7e308,
    "00" * 32, "ff" * 32, "\x00", "é" * 200, DEVICE, "cpu/x/t9999/y", "cpu/t1/",
    [], [[]], {}, [0.0] * 16, [1e38] * 16, [1.7e308] * 16, [0.0] * 15, *map(str, OpKind),
]  # fmt: skip


def places(value: Any, at: Place = ()) -> Iterator[Place]:
    """Where the values of a JSON document stand, groups and lists among them."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        if (*at, name)[0] not in CHAIN:
            yield (*at, name)
            yield from places(inner, (*at, name))


def change(data: st.DataObject, document: Document) -> None:
    """Replace a value by an odd one, or by another one of the document."""
    *group, last = data.draw(st.sampled_from(list(places(document))))
    target: Any = document
    for name in group:
        target = target[name]
    others = [other for other in document.values() if type(other) is type(target[last])]
    target[last] = copy.deepcopy(data.draw(st.sampled_from([*ODD, *others])))


def change_header(data: st.DataObject, world: World, named: Document) -> None:
    """Change the header of an input; the sender that it then names signs it, if that is a miner."""
    header = json.loads(named["header"])
    change(data, header)
    text = json.dumps(header, separators=(",", ":"), sort_keys=True)
    key = next((m.key for m in world.miners if m.hotkey == header.get("sender")), world.miners[0].key)
    named.update(header=text, signature=key.sign(signing_bytes(DOMAIN, text.encode())).hex())


@settings(max_examples=25, deadline=None)
@given(stage=st.integers(0, 2), pipeline=st.sampled_from(["sync", "delayed"]), data=st.data())
def test_whatever_a_miner_receipts_each_drawn_audit_has_its_result(
    stage: int, pipeline: str, data: st.DataObject
) -> None:
    world = hostile(trained(pipeline))
    documents = [receipt.model_dump(mode="json") for receipt in world.of_epoch(0, world.miners[stage])]
    for how in data.draw(st.lists(st.sampled_from(WAYS), min_size=1)):
        at, other = (data.draw(st.integers(0, len(documents) - 1)) for _ in range(2))
        if how == "repeat":
            documents.insert(other, copy.deepcopy(documents[at]))
        elif how == "leave" and len(documents) > 1:
            del documents[at]
        elif how == "swap":
            documents[at], documents[other] = documents[other], documents[at]
        elif how == "header" and documents[at]["inputs"]:
            change_header(data, world, data.draw(st.sampled_from(documents[at]["inputs"])))
        else:
            changed = copy.deepcopy(documents[at])
            change(data, changed)
            with suppress(ValidationError):
                documents[at] = Receipt.model_validate_json(json.dumps(changed)).model_dump(mode="json")
    rewrite(world, world.miners[stage], [Receipt.model_validate(document) for document in documents])
    asyncio.run(audited(world)).check()
