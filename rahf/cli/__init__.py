"""The commands of `rahf`; heavy imports happen inside them."""
