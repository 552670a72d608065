"""The public verdicts of an epoch: the answer of `GET /v1/epochs/{e}/verdicts`."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from iota.protocol.messages import Hotkey, Verdict
from iota.spec import Count, Frozen, Hex32, Small

PAGE: Final = 1024
"""Verdicts of one page: about 0.5 MB of JSON."""
_MAX_VALIDATORS: Final = 4096
"""Validators with a link: far more than a subnet has permits."""


class FiledVerdict(Frozen):
    """A verdict as its author signed it. The reader checks the signature."""

    validator: Hotkey
    verdict: Verdict


class VerdictPage(Frozen):
    """One page, in the order of filing, and the links that the draws follow from."""

    epoch: Small
    closed: bool
    """Whether the audits are closed, so that no verdict is added any more."""
    links: dict[Hotkey, Hex32] = Field(max_length=_MAX_VALIDATORS)
    """validator -> the link that it revealed."""
    total: Count
    """Verdicts of all pages."""
    verdicts: tuple[FiledVerdict, ...] = Field(max_length=PAGE)
