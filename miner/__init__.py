"""The miner: one replica of one stage. `core` decides what to do; `replica` and `node` carry it out."""
