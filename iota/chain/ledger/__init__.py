"""The embedded ledger: a chain of one trusted process, for one-machine runs and tests.

`rules` and `yuma` decide, `clock` counts blocks, `database` keeps rows, `book` joins them;
`server` and `client` are the two ends of its HTTP interface, `messages` its requests and answers.
"""
