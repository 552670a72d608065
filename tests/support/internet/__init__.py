"""Parts of the emulated internet: lines, packets, NATs and routes (pure); namespaces, the router's process.

`tests/support/emulated_internet.py` is how tests and benches use them.
"""
