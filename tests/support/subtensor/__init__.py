"""A model of a subtensor chain for tests: one state, seen in memory (`memory`) or by websocket (`node`)."""
