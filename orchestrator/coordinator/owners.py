"""Which hotkeys own which workers, and which workers their owners have revoked."""

from __future__ import annotations

from dataclasses import dataclass, field

from iota.protocol.member_records import Charge
from iota.protocol.messages import JoinRequest, Verdict
from iota.protocol.problems import Problem, ProblemType, Standing
from iota.protocol.workers import Revocation
from orchestrator.coordinator.history import Records, keep
from orchestrator.coordinator.member import Member


@dataclass
class Owners:
    """Workers with a certificate, by owner. Only the methods change it.

    A worker has one owner for the whole run, which is that of its first join. A revocation holds for the rest
    of the run; it may come before the worker has ever joined.
    """

    workers: dict[str, list[str]] = field(default_factory=dict)
    """owner -> its workers that have joined, in the order of first joins; revoked ones too."""
    revoked: dict[str, dict[str, str]] = field(default_factory=dict)
    """owner -> worker -> signature of the revocation."""
    charged: dict[str, Records] = field(default_factory=dict)
    """owner -> newest verdicts that cost its miners something, each a `Charge`. For people alone."""

    def add(self, member: Member) -> None:
        """Add a member that joined for the first time."""
        if member.certificate is not None:
            self.workers.setdefault(member.owner, []).append(member.hotkey)

    def revoke(self, revocation: Revocation) -> bool:
        """Record a revocation; False where the worker is revoked already."""
        of_owner = self.revoked.setdefault(revocation.owner, {})
        new = revocation.worker not in of_owner
        of_owner.setdefault(revocation.worker, revocation.signature)
        return new

    def charge(self, member: Member, validator: str, verdict: Verdict) -> None:
        """Keep a verdict that costs the member something."""
        charge = Charge(
            validator=validator,
            epoch=verdict.epoch,
            audit=verdict.audit,
            outcome=verdict.outcome,
            miner=member.hotkey,
        )
        self.charged[member.owner] = keep(self.charged.get(member.owner, ()), charge)

    def is_revoked(self, owner: str, worker: str) -> bool:
        """Whether the owner has revoked this worker."""
        return worker in self.revoked.get(owner, ())

    def revocation(self, run: str, member: Member) -> Revocation | None:
        """The revocation of a member by its owner, as the owner signed it."""
        signature = self.revoked.get(member.owner, {}).get(member.hotkey)
        if signature is None:
            return None
        return Revocation(run=run, owner=member.owner, worker=member.hotkey, signature=signature)

    def places(self, owner: str) -> list[str]:
        """The owner's workers that joined and are not revoked. One that left keeps its place."""
        return [worker for worker in self.workers.get(owner, ()) if not self.is_revoked(owner, worker)]

    def refusal(self, hotkey: str, known: Member | None, request: JoinRequest) -> Problem | None:
        """The problem that refuses a join for its owner, or None.

        `known` is the member of this hotkey, if it has joined before.
        """
        owner = request.certificate.owner if request.certificate is not None else hotkey
        if known is not None and known.owner != owner:
            was = "by itself" if known.owner == hotkey else f"as a worker of {known.owner}"
            return Problem(
                ProblemType.BAD_CERTIFICATE,
                f"{hotkey} is in this run {was}, and a key has one owner for a whole run: use another key",
            )
        return revoked_problem(owner, hotkey) if self.is_revoked(owner, hotkey) else None


def revoked_problem(owner: str, worker: str) -> Problem:
    """The problem for any request of a worker that its owner has revoked."""
    return Problem(
        ProblemType.NOT_A_MEMBER,
        f"{owner} has revoked its worker {worker} for the rest of this run: make a new key with"
        " `iota-miner certify`",
        extra={"standing": Standing.REVOKED.value},
    )
