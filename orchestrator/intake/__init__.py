"""What may be taken of a request: bounds, rights, receipt chains, names and repeats. Pure."""
