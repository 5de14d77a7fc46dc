"""Measures the graph's own hops: real wire types through real handles, and no model in the way."""
