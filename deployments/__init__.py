"""Chroma on Ray Serve: settings, Serve classes, metrics and the command line."""
