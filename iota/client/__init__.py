"""The node's side of the protocol: requests to the orchestrator, the conversation, objects of a run."""
