"""The Bittensor chain: the `Chain` interface over the installed SDK.

`client` is the whole of it; `connection` owns the SDK's client, `transport` bounds its websocket, `view`
reads at one block, `neurons` builds the metagraph, `operations` are the writes, `wallet` the keys they sign
with, and `faults` turns the SDK's errors into ours.
"""
