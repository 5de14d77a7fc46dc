"""A cluster under load whose parts die: nothing that was said is lost, and nothing is left behind."""
