"""A grid on one machine: separate processes, keys, folders and network namespaces, as on many.

Glossary:
    layout: which farms, nodes, addresses and folders there are; follows from home and counts alone.
    up, down: start everything from nothing or from what an interrupted run left; leave nothing behind.
"""
