"""Compose files: read, checked to the last key, and turned into a typed model.

Glossary: a *document* is the YAML text as plain values with a line for each; a *path* names one place in it
(`services.web.ports[0]`); a *problem* is one thing wrong or worth knowing there; the *model* is what a deployment is
planned from. Nothing here needs a grid. Rules and bounds: docs/spec/compose.md; what is supported: docs/compose.md.
"""
