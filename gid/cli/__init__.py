"""The commands of `gid`; heavy imports happen inside them."""
