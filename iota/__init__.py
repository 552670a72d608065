"""IOTA: one large language model, trained by many people with one GPU each."""

__version__ = "0.1.0"
