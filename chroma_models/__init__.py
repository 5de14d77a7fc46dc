"""Chroma 1.0 in torch: weights, layers, engines and stages. Imports no server and no Ray."""
