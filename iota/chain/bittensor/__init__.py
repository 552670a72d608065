"""The Bittensor chain: the `Chain` interface over the SDK.

`client` implements the interface. `connection` owns the SDK's client, `transport` bounds its websocket,
`view` reads at one block, `neurons` builds the metagraph, `operations` are the writes, `wallet` the keys that
sign them, and `faults` maps the SDK's errors to those of `iota.chain.errors`.
"""
