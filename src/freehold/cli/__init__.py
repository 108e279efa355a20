"""The command line: thin faces over client, demo and the daemons; one module per group of commands.

Every command returns a `Result`; `main` prints it as people's text or, with `--json`, as exactly one JSON document.
"""
