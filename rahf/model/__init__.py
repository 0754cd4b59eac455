"""The rich-feedback network, its parts, presets and files."""
