"""What the commands of both libraries do alike."""
