"""Hostile bodies: refused for little time and memory, whatever they hold."""

from __future__ import annotations

import time
import tracemalloc

import pytest

from iota.protocol.messages import MAX_PARTS, ExchangeRequest
from iota.protocol.problems import Problem, ProblemType
from orchestrator.intake.bounds import parse


def many(text: str, count: int = 250_000) -> str:
    return ",".join([text] * count)


def numbered(count: int) -> str:
    return ",".join(f'"{n}":1' for n in range(count))


@pytest.mark.parametrize(
    "inside",
    [
        '"reports":[{"kind":"delta","epoch":0,"parts":[' + many("{}") + "]}]",
        '"reports":[{"kind":"delta","epoch":0,"parts":[' + many("1", 1_000_000) + "]}]",
        '"receipts":{"receipts":[' + many("{}", 1024) + "]}",
        '"frames":[' + many("[]") + "]",
        numbered(300_000),
        '"reports":[{"kind":"weights","weights":{' + numbered(300_000) + "}}]",
    ],
    ids=["parts", "numbers", "receipts", "frames", "fields", "weights"],
)
def test_a_hostile_body_costs_no_more_than_its_reading(inside: str) -> None:
    body = ('{"cursor":0,' + inside + "}").encode()
    begun = time.process_time()
    with pytest.raises(Problem) as caught:
        parse(ExchangeRequest, body)
    assert time.process_time() - begun < 0.6  # described in full they take seconds
    assert caught.value.type is ProblemType.MALFORMED_BODY
    assert len(caught.value.to_json()) < 8192
    tracemalloc.start()
    try:
        with pytest.raises(Problem):
            parse(ExchangeRequest, body)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()


def test_a_full_report_is_taken() -> None:
    part = '{"key":"a/b","digest":"' + "0" * 64 + '","size":1}'
    body = '{"cursor":0,"reports":[{"kind":"delta","epoch":0,"parts":[' + many(part, MAX_PARTS) + "]}]}"
    assert len(parse(ExchangeRequest, body.encode()).reports) == 1


def test_a_few_errors_are_named() -> None:
    with pytest.raises(Problem) as caught:
        parse(ExchangeRequest, b'{"wait_s":1}')
    assert caught.value.extra["errors"] == [{"field": "cursor", "error": "Field required"}]
