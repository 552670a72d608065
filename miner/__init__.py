"""The miner: one replica of one stage. `core` decides what happens next, `replica` and `node` do it."""
