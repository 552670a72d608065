"""Performs the jobs of audits: fetches evidence, replays ops and compares them, signs verdicts."""
