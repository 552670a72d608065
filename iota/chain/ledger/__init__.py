"""The embedded ledger: a chain of one trusted process, for one-machine runs and tests.

`rules` and `yuma` are its pure rules, `clock` numbers blocks, `database` stores rows, `book` combines them.
`server` and `client` are the ends of its HTTP interface, `messages` the requests and answers.
"""
