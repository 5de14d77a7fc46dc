"""A steady mixed load for as long as one likes, and whether anything grows under it."""
