"""The validator's decisions: what to draw, fetch, audit, file and pay. Pure."""
