"""Decides on certificates of workers at a join, and on their revocations."""

from __future__ import annotations

from typing import Final

from iota.console.counts import counted
from iota.identity.certificates import Verify, certificate_fault, is_signed
from iota.identity.signatures import is_address
from iota.protocol.messages import JoinRequest, Role
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.workers import Revocation
from orchestrator.coordinator.state import RunState

MAX_REVOKED: Final = 256
"""Keys that one owner may revoke in a run: the journal and the state keep each for ever."""
_NAMED: Final = 4
"""Workers that a refusal names; first those that have left."""


def check_certificate(
    run: RunState, hotkey: str, request: JoinRequest, verify: Verify, places: int | None
) -> None:
    """Check the certificate of a join, if it has one. `places` is the most workers of one owner, if not None.

    Raises Problem: BAD_CERTIFICATE; REFUSED where the owner has no place left.
    """
    certificate = request.certificate
    if certificate is None:
        return
    if request.role is not Role.MINER:
        raise _bad("a validator acts by its own hotkey, and needs no certificate")
    if fault := certificate_fault(certificate, run.spec.id, hotkey, verify):
        raise _bad(f"the certificate {fault}")
    owner = certificate.owner
    if places is None or hotkey in run.members:
        return
    taken = run.owners.places(owner)
    if len(taken) >= places:
        gone = sorted(taken, key=lambda worker: not run.members[worker].left)
        by = ", ".join(f"{worker} ({_standing(run, worker)})" for worker in gone[:_NAMED])
        more = (
            f" and {len(taken) - _NAMED} more, as `iota explain {owner}` lists them" if gone[_NAMED:] else ""
        )
        raise Problem(
            ProblemType.REFUSED,
            f"{owner} has {counted(places, 'worker')} in this run, and no owner may have more: {by}{more}."
            " One that has left keeps its place, until its owner gives it back with `iota-miner revoke"
            " ADDRESS`; then start this one again",
            extra={"final": True},
        )


def _standing(run: RunState, worker: str) -> str:
    member = run.members[worker]
    return "it has left" if member.left else f"stage {member.stage}{'' if member.live else ', lost'}"


def new_revocation(run: RunState, hotkey: str, revocation: Revocation, verify: Verify) -> bool:
    """Whether this revocation, sent by `hotkey`, changes anything: a repeated one does not.

    Raises Problem: FORBIDDEN for a worker that is not the sender's; BAD_SIGNATURE; REFUSED for another run,
        and beyond `MAX_REVOKED`.
    """
    owner, worker = revocation.owner, revocation.worker
    if owner != hotkey:
        raise Problem(ProblemType.FORBIDDEN, f"only {owner} can revoke its worker {worker}")
    if revocation.run != run.spec.id:
        raise Problem(ProblemType.REFUSED, f"it revokes a worker of run {revocation.run[:12]}, not of this")
    if not is_address(worker):
        raise Problem(ProblemType.MALFORMED_BODY, f"{worker} is mistyped: it is no ss58 address")
    if not is_signed(revocation, verify):
        raise Problem(ProblemType.BAD_SIGNATURE, f"the revocation is not signed by {owner}")
    if run.owners.is_revoked(owner, worker):
        return False
    member = run.members.get(worker)
    if worker == owner or (member is not None and member.owner != owner):
        raise Problem(ProblemType.FORBIDDEN, f"{worker} is no worker of {owner}")
    if len(run.owners.revoked.get(owner, ())) >= MAX_REVOKED:
        raise Problem(ProblemType.REFUSED, f"{owner} has revoked {MAX_REVOKED} keys in this run: no more")
    return True


def _bad(detail: str) -> Problem:
    return Problem(ProblemType.BAD_CERTIFICATE, detail)
