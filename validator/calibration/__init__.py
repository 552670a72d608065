"""`iota-validator calibrate`: measures how far honest replays on different devices are from one another."""
