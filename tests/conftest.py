"""Property tests draw the same examples in every run of the same code, so that a failure is a change's.

To explore further, set `derandomize=False` here.
"""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
