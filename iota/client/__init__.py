"""A node's side of the protocol: requests, the conversation with the orchestrator, objects of a run."""
