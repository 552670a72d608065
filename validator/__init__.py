"""The validator: re-executes sampled work, scores miners, sets weights. `core` decides, the rest acts."""
