"""The orchestrator's HTTP server: aiohttp around the coordinator and the journal.

`app` builds the application and `serving` serves it. `middleware` and `limits` run before every handler,
`member_calls` and `public` hold the handlers, `recorder` journals and applies entries, and `background` has
the periodic work. Whether a request is accepted is decided in `orchestrator.intake`.
"""
