"""Chroma on Ray Serve: settings, Serve classes, metrics and the command line."""

# Serve reads its environment when it is first imported, and a handle carries what its maker's process read: this comes
# before any module of ours imports Ray.
from deployments import transport as transport
