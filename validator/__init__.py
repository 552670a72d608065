"""Re-executes sampled work, scores miners, sets weights."""
