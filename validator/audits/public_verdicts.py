"""The verdicts that other validators published of an epoch, read and checked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

from iota.client.orchestrator import OrchestratorClient
from iota.protocol.verdicts import FiledVerdict, VerdictPage
from validator.audits.verdicts import verify_verdict
from validator.chain import SubnetChain
from validator.core.links import verify_link
from validator.core.pool import Judgement, Pool, is_relevant

_MAX_PAGES: Final = 4096
"""Four million verdicts: 20 times those of 16 validators on 3,000 miners."""
_RETRY_FOR_S: Final = 30.0
"""How long a page is asked for: weights wait meanwhile, and can do without."""


@dataclass(frozen=True)
class VerdictReader:
    """Reads for the validator `own`. The pages are read twice, and only what scores depend on is kept."""

    run: str
    own: str
    client: OrchestratorClient
    chain: SubnetChain

    async def read(self, epoch: int) -> Pool:
        """What the others published.

        Raises Problem, OrchestratorUnreachable, UntrustedAnswer or ChainError where it is not to be had.
        """
        page = await self._page(epoch, 0)
        tips = await self.chain.committed_tips(self.run, sorted(page.links.keys() - {self.own}))
        links = {v: link for v, link in page.links.items() if verify_link(link, epoch, tips.get(v))}
        tasks = {
            Judgement.of(filed.validator, filed.verdict).task
            async for filed in self._pages(page)
            if filed.verdict.accuses
        }
        judgements = [
            judgement
            async for filed in self._pages(page)
            if filed.validator in links
            and is_relevant(judgement := Judgement.of(filed.validator, filed.verdict), tasks)
            and judgement.task.epoch == epoch
            and verify_verdict(self.run, filed.verdict, filed.validator)
        ]
        return Pool(links, tuple(judgements), complete=page.closed)

    async def _page(self, epoch: int, number: int) -> VerdictPage:
        return await self.client.verdicts(epoch, number, retry_for_s=_RETRY_FOR_S)

    async def _pages(self, page: VerdictPage) -> AsyncIterator[FiledVerdict]:
        """Verdicts from the first page on, to the first empty one."""
        for number in range(1, _MAX_PAGES):
            for filed in page.verdicts:
                yield filed
            page = await self._page(page.epoch, number)
            if not page.verdicts:
                return
