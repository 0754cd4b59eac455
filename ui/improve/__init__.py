"""The Improve tab: what rich feedback is for."""
