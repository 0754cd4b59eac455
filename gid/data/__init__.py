"""What motion is learned from: procedural scenes with exact motion, measured clips, shards of both."""
