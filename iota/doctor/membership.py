"""Findings on the hotkey's membership of the subnet: registration, permit, weights, balance. Pure."""

from __future__ import annotations

from typing import Final

from iota.chain.chain import Neuron, RegistrationTerms, Subnet
from iota.console.counts import counted
from iota.doctor.facts import Facts, Unknown
from iota.doctor.finding import Finding, ok, problem, warning
from iota.protocol.messages import Role
from iota.registration.register import FEES_TAO

UPDATE: Final = "update this program and its SDK, or the other side if that is the older one"


def membership(facts: Facts) -> list[Finding]:
    """Findings on the hotkey; none without a chain or a hotkey, whose absence has a finding of its own."""
    seen, hotkey = facts.chain, facts.wallet.hotkey
    if isinstance(seen.info, Unknown):
        return []
    if isinstance(seen.subnet, Unknown):
        remedy = "check --netuid and --network; if they are right, the chain node is slow: try again"
        return [problem("subnet", seen.subnet.reason, UPDATE if seen.subnet.drifted else remedy)]
    if hotkey is None:
        return []
    neuron = seen.subnet.neuron(hotkey)
    if neuron is None:
        price = 0.0 if isinstance(seen.terms, Unknown) else seen.terms.cost_tao
        if facts.wallet.certificate is not None:  # the coldkey that pays is known where the owner's wallet is
            return [_unregistered(facts)]
        return [_unregistered(facts), *_balance(facts, price + FEES_TAO, "to register, with fees")]
    found = [ok("registration", f"uid {neuron.uid} of subnet {facts.netuid}")]
    if facts.role is Role.VALIDATOR:
        found += [_permit(facts, seen.subnet, neuron), _activity(seen.subnet, neuron)]
        # The hotkey signs weights, and its coldkey pays the fee.
        found += _balance(facts, FEES_TAO, "for the fees of its weights")
    return found


def _unregistered(facts: Facts) -> Finding:
    found = f"{facts.wallet.hotkey} is not registered on subnet {facts.netuid}"
    terms = facts.chain.terms
    if facts.wallet.certificate is not None:  # this machine's wallet is another's, if it has one
        elsewhere = f"`iota-{facts.role} register --wallet.name W --wallet.hotkey H {facts.chain_flags}`"
        return problem("registration", found, f"register it where its wallet is: {elsewhere}")
    command = f"`iota-{facts.role} register {facts.wallet_flags} {facts.chain_flags}`"
    if isinstance(terms, Unknown):
        return problem("registration", found, f"register it: {command}")
    if not terms.open:
        return problem(
            "registration", f"{found}, which is closed just now", "ask the subnet's owner, or wait"
        )
    price = f"; the price is {terms.cost_tao:.4f} TAO now" if terms.needs_coldkey else ", free of charge"
    where = ", where the coldkey is" if terms.needs_coldkey and not facts.wallet.coldkey_is_here else ""
    return problem("registration", found, f"register it: {command}{where}{price}")


def _balance(facts: Facts, needed_tao: float, purpose: str) -> list[Finding]:
    """The coldkey's balance against the amount needed; no finding on a ledger, which has no TAO."""
    seen = facts.chain
    if not isinstance(seen.terms, RegistrationTerms) or not seen.terms.needs_coldkey:
        return []
    if isinstance(seen.balance_tao, Unknown):
        why = seen.balance_tao.reason
        return [warning("balance", f"not known: {why}", "try again, or run `btcli wallet balance`")]
    if seen.balance_tao is None:
        remedy = "look where the coldkey is, with `btcli wallet balance`; copy coldkeypub.txt here to see it"
        return [warning("balance", "not known: there is no coldkeypub.txt", remedy)]
    found = f"the coldkey has {seen.balance_tao:.4f} TAO"
    if seen.balance_tao < needed_tao:
        short = f"{found}, and {needed_tao:.4f} are needed {purpose}"
        return [problem("balance", short, f"send TAO to {seen.coldkey}")]
    return [ok("balance", f"{found}, enough {purpose}")]


def _permit(facts: Facts, subnet: Subnet, neuron: Neuron) -> Finding:
    if neuron.validator_permit:
        return ok("permit", f"validator permit, stake {neuron.stake:.1f}")
    stakes = [other.stake for other in subnet.neurons if other.validator_permit]
    least = f"the least stake with one is {min(stakes):.1f}" if stakes else "no hotkey has one yet"
    found = f"no validator permit with a stake of {neuron.stake:.1f}, so that no weights are taken; {least}"
    if isinstance(facts.chain.terms, RegistrationTerms) and not facts.chain.terms.needs_coldkey:
        remedy = "a ledger gives stake to a hotkey that is new to it: register another, as a validator"
        return problem("permit", found, remedy)
    return problem(
        "permit",
        found,
        f"where the coldkey is, add stake with `btcli stake add {facts.chain_flags} --hotkey "
        f"{neuron.hotkey} --amount-tao AMOUNT`; the permit comes with the next epoch",
    )


def _activity(subnet: Subnet, neuron: Neuron) -> Finding:
    """Age of the validator's weights against the activity cut-off."""
    ago = max(0, subnet.block.number - neuron.last_update)
    found = f"last set {counted(ago, 'block')} ago, or never; a validator counts for {subnet.activity_cutoff}"
    if ago > subnet.activity_cutoff:
        remedy = "start `iota-validator start`; if it runs, its log says why it sets none"
        return warning("weights", found, remedy)
    return ok("weights", found)
