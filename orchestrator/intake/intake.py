"""Turns a member's parsed request into the journal entry to record, or raises the Problem that refuses it."""

from __future__ import annotations

from datetime import UTC, datetime

from iota.identity import signatures
from iota.identity.certificates import Verify
from iota.identity.signatures import signing_bytes
from iota.protocol.frames import KEPT_DOMAIN, FrameKept, FrameNotice, kept_statement
from iota.protocol.messages import (
    PROTOCOL_VERSION,
    BadValue,
    ExchangeRequest,
    JoinRequest,
    ObjectRequest,
    Reveal,
)
from iota.protocol.problems import Problem, ProblemType
from iota.protocol.words import WORD_DOMAIN, signed_word
from iota.protocol.workers import Revocation
from orchestrator.coordinator import Coordinator, Exchanged, Joined, Left, Member, Returned, Revoked
from orchestrator.coordinator.owners import revoked_problem
from orchestrator.intake.owners import check_certificate, new_revocation
from orchestrator.intake.receipts import new_receipts
from orchestrator.intake.rights import Access, access_for
from orchestrator.intake.validation import check_frames, check_reports


class Intake:
    """Decides on requests by the coordinator's state, which it only reads.

    The caller must journal and apply the returned entry before it asks about
    another request of the same hotkey (for joins: of any hotkey). Times (`at`) are Unix seconds. Each method
    but `join` and `revoke` raises Problem: NOT_JOINED for a hotkey that has not joined, NOT_A_MEMBER for a
    worker that its owner has revoked.
    """

    def __init__(
        self,
        coordinator: Coordinator,
        verify: Verify = signatures.verify,
        places: int | None = None,
    ) -> None:
        """`verify` checks receipts, words and certificates.

        `places` is the most workers of one owner, None for no limit.
        """
        self._coordinator, self._verify, self._places = coordinator, verify, places

    def member(self, hotkey: str) -> Member:
        """The member with this hotkey."""
        member = self._coordinator.members.get(hotkey)
        if member is None:
            raise Problem(ProblemType.NOT_JOINED, f"{hotkey} has not joined this run: POST /v1/join first")
        if self._coordinator.state.owners.is_revoked(member.owner, hotkey):
            raise revoked_problem(member.owner, hotkey)
        return member

    def present(self, hotkey: str, session: int) -> Member:
        """The member, for a request of its `session`; 0 is not looked at.

        Raises Problem (REFUSED, final) for one of another process than joined last with the key.
        """
        member = self.member(hotkey)
        if session not in (0, member.session):
            joined = datetime.fromtimestamp(member.joined_at, UTC)
            raise Problem(
                ProblemType.REFUSED,
                f"this key is used by another process (joined {joined:%H:%M:%S} UTC), and works in one place"
                " at a time: each further machine needs a worker of its own (`iota-miner certify`). If the"
                " other process is not yours, the key is stolen",
                extra={"final": True},
            )
        return member

    def join(self, hotkey: str, request: JoinRequest, at: float) -> Joined:
        """The entry of a join. The caller has admitted the owner, who is the certificate's if it has one.

        Raises Problem: VERSION_MISMATCH, FORBIDDEN (a second role), RUN_ENDED, BAD_CERTIFICATE, NOT_A_MEMBER
            (a revoked worker), or REFUSED (too many workers).
        """
        if PROTOCOL_VERSION not in request.versions:
            raise _version_mismatch(request.versions)
        check_certificate(self._coordinator.state, hotkey, request, self._verify, self._places)
        refusal = self._coordinator.refusal(hotkey, request)
        if refusal is not None:
            raise refusal
        return Joined(at=at, hotkey=hotkey, request=request)

    def returned(self, hotkey: str, at: float) -> Returned | None:
        """The entry for a lost member that sends a request again; None for any other member."""
        member = self.member(hotkey)
        return None if member.live or member.left else Returned(at=at, hotkey=hotkey)

    def exchange(self, hotkey: str, request: ExchangeRequest, at: float) -> Exchanged | None:
        """The entry with the new content of an exchange; None where none of it would change anything.

        Raises:
            Problem: FORBIDDEN for a frame or a report that this member must not send; BAD_RECEIPTS;
                BAD_SIGNATURE.
        """
        member, run = self.member(hotkey), self._coordinator.state
        check_frames(run.spec, member, request.frames)
        check_reports(run, member, request.reports)
        batch = request.receipts
        receipts = new_receipts(run, member, batch, self._verify, at) if batch is not None else ()
        frames = tuple(notice for notice in request.frames if self._coordinator.is_new(hotkey, notice))
        reports = tuple(report for report in request.reports if self._coordinator.is_new(hotkey, report))
        for notice in frames:
            if notice.kept is not None:
                self._check_kept(notice, notice.kept)
        for report in reports:
            if isinstance(report, BadValue):
                self._check_word(hotkey, report)
        if any(isinstance(report, Reveal) for report in reports):
            reports = request.reports  # what comes with an epoch's link may count with it alone
        if not (receipts or frames or reports):
            return None
        return Exchanged(at=at, hotkey=hotkey, receipts=receipts, frames=frames, reports=reports)

    def _check_kept(self, notice: FrameNotice, kept: FrameKept) -> None:
        """Raise Problem (BAD_SIGNATURE) unless the receiver that is named has acknowledged the frame.

        Its sender had to check this. Only what is new is checked: at most what the sender has to deliver now.
        """
        said = kept_statement(self._coordinator.spec.id, notice.name, notice.digest)
        signed = signing_bytes(KEPT_DOMAIN, said), bytes.fromhex(kept.signature)
        if not self._verify(*signed, kept.receiver):
            raise Problem(
                ProblemType.BAD_SIGNATURE,
                f"frame {notice.name} is not acknowledged by {kept.receiver}: check what a peer signs before"
                " you announce it, or store the frame",
            )

    def _check_word(self, hotkey: str, report: BadValue) -> None:
        """Raise Problem (BAD_SIGNATURE) unless the member has signed a word that may stand in a record."""
        word = signed_word(self._coordinator.spec.id, report.epoch, report.step, report.microbatch)
        if not self._verify(signing_bytes(WORD_DOMAIN, word), bytes.fromhex(report.signature), hotkey):
            raise Problem(ProblemType.BAD_SIGNATURE, "a word on NaN or Inf must be signed by who says it")

    def leave(self, hotkey: str, at: float) -> Left | None:
        """The entry of a leave; None for a member that has left already."""
        return None if self.member(hotkey).left else Left(at=at, hotkey=hotkey)

    def revoke(self, hotkey: str, revocation: Revocation, at: float) -> Revoked | None:
        """The entry of a revocation that `hotkey` sent; None where the worker is revoked already.

        Raises Problem as `new_revocation` does.
        """
        new = new_revocation(self._coordinator.state, hotkey, revocation, self._verify)
        return Revoked(at=at, revocation=revocation) if new else None

    def access(self, hotkey: str, request: ObjectRequest) -> Access:
        """The access to an object that a member requests. Raises Problem as `access_for` does."""
        return access_for(self._coordinator, self.member(hotkey), request)


def _version_mismatch(theirs: tuple[int, ...]) -> Problem:
    older = max(theirs, default=0) < PROTOCOL_VERSION
    who = "the node: install the current release" if older else "the orchestrator, or use an older node"
    return Problem(
        ProblemType.VERSION_MISMATCH,
        f"this run speaks protocol {PROTOCOL_VERSION}, the node {list(theirs)}; upgrade {who}",
        extra={"orchestrator_versions": [PROTOCOL_VERSION], "node_versions": list(theirs)},
    )
