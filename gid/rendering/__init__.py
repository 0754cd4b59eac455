"""From a photo and its motion to frames and files."""
