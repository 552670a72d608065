"""Prometheus metrics of the orchestrator, in a registry of their own (no process-wide defaults)."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_GAUGES = ("epoch", "step", "open_microbatches", "block")
"""Numbers of the status that may fall."""
_TOTALS = ("tokens", "settled", "dropped", "rerouted", "receipts", "unfit")
"""Numbers of the status that only grow."""


class Metrics:
    """Counters of the HTTP server's own work. Numbers of the run are read from its status at each scrape."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        buckets = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0, 5.0)
        self._requests = Counter(
            "iota_http_requests_total", "Requests answered", ("route", "status"), registry=self.registry
        )
        self._problems = Counter(
            "iota_problems_total", "Problems answered", ("type",), registry=self.registry
        )
        self._commits = Histogram(
            "iota_journal_commit_seconds", "Time of a journal commit", buckets=buckets, registry=self.registry
        )
        self._entries = Counter(
            "iota_journal_entries_total", "Entries journaled since the start", registry=self.registry
        )
        self._failures = Counter(
            "iota_background_failures_total", "Failed calls of others", ("what",), registry=self.registry
        )
        self._members = Gauge("iota_members", "Members of the run", ("role", "live"), registry=self.registry)
        self._run = {
            name: Gauge(f"iota_run_{name}", f"The run's {name}", registry=self.registry)
            for name in (*_GAUGES, *_TOTALS)
        }
        self._loss = Gauge("iota_run_loss", "Mean loss of the last closed step", registry=self.registry)

    def request(self, route: str, status: int) -> None:
        """Count an answered request. `route` is the pattern, so that the number of labels stays bounded."""
        self._requests.labels(route, str(status)).inc()

    def problem(self, type: str) -> None:
        """Count an answered problem."""
        self._problems.labels(type).inc()

    def commit(self, entries: int, seconds: float) -> None:
        """Record one commit of the journal."""
        self._entries.inc(entries)
        self._commits.observe(seconds)

    def failure(self, what: str) -> None:
        """Count a failed call to the chain or the store (`what`)."""
        self._failures.labels(what).inc()

    def render(self, status: dict[str, Any]) -> bytes:
        """The text of a scrape. `status` is the coordinator's public status."""
        for name, gauge in self._run.items():
            value = status.get(name)
            if isinstance(value, int | float):
                gauge.set(value)
        if status.get("losses"):
            self._loss.set(status["losses"][-1])
        self._members.clear()
        for member in status.get("members", ()):
            self._members.labels(member["role"], str(member["live"]).lower()).inc()
        return generate_latest(self.registry)
