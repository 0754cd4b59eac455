"""The Poke tab."""
