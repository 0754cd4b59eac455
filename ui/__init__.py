"""The pages of the demo, one module a tab."""
