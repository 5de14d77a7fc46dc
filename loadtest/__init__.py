"""A stranger who speaks the public API: benchmarks and load."""
