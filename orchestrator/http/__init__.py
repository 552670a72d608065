"""The orchestrator's HTTP server: aiohttp around the coordinator and the journal, with no decisions.

`app` builds the application, `run` serves it; each other file is one duty of the edge.
"""
