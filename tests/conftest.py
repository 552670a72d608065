"""Property tests draw the same examples in every run of the same code, so that a failure is a change's.

`--hypothesis-profile explore` draws others each time.
"""

from hypothesis import settings

settings.register_profile("explore", derandomize=False)
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
