"""IOTA: one large language model, trained by many people with one GPU each."""
