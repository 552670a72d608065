"""What nodes and the orchestrator say to each other: messages, events, receipts, records, problems. Pure."""
