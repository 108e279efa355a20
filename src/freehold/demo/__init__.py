"""`make demo`: the whole path on one machine, shown while it happens.

The demo only starts, stops, kills and types commands; what it shows is read from their `--json`. The one exception is
the visitor: a real HTTP request to the site's local address.
"""
