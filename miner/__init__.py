"""The miner: one replica of one stage. `schedule` decides what runs next, `node` does it."""
