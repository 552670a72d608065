"""The decisions of one life of a replica: facts in, effects out. No clock, no chance, no input or output."""
