"""Freehold: a peer-to-peer cloud whose claims can be checked by anyone."""
