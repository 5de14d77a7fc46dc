"""The manifest's own config on hosts of its own: a head, workers, a service before them, and workers that go."""
