"""Clients that people already use, each unmodified and in an environment of its own, against `chroma serve`."""
