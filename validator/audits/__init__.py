"""Audits: what a sealed epoch demands, evidence, replay, comparison and verdicts."""
