"""Objects of a run in the store: their keys and their sizes."""
