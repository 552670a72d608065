"""The orchestrator's HTTP server: aiohttp around the coordinator and the journal, with no decisions.

`app` builds the application and `serving` serves it. `middleware` and `limits` stand before every handler,
`member_calls` and `public` are the handlers, `recorder` journals and applies, `background` needs no request.
Decisions on requests are `orchestrator.intake`'s.
"""
