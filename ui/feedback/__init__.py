"""The Rich feedback tab."""
