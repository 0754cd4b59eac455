"""What `gid` and `rahf` both stand on, and which knows neither of them."""
