"""Frames on the CPU: compiled loops, a frame to a thread."""
