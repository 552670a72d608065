"""Plans and records a run; touches no tensor."""
