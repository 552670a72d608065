"""The terminal: how a command ends, what it asks, and what of a URL it shows."""
