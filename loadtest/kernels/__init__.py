"""Measurements of single operations, on which the engines' settings rest."""
