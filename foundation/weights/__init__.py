"""Weights by name: resolving, checking, describing and publishing them."""
