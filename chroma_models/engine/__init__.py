"""Batched models with slots and a step loop of their own. They know nothing of Ray."""
