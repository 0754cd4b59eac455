"""Generative Image Dynamics: one photo in, a spectral volume of its motion out."""

__version__ = "0.1.0"
