"""Rich Automatic Human Feedback: where and how a generated image is wrong, and which words of its prompt it misses."""

__version__ = "0.1.0"
