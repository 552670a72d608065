"""What nodes and the orchestrator say to each other: messages, events, receipts, keys, signatures."""
