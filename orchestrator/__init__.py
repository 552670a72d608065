"""The server of a run: it plans and records, and handles no tensor."""
