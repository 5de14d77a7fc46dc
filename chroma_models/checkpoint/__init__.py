"""A Chroma checkpoint on disk: its shapes, its weights, and random ones in the same layout."""
