"""A photo that answers a hand and the wind."""
