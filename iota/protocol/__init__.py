"""The protocol between nodes and the orchestrator: messages, events, receipts, records, problems. Pure."""
