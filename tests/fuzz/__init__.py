"""Bytes that nobody meant to send, at everything that reads what a stranger or an operator wrote.

The property is the same everywhere: a result or a typed ChromaError, no crash, at most 1 s of CPU for a case.
"""
