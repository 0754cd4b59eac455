"""What draws the eye in a picture, and starting latents made better by it (SGOOL) or by the whole picture (DOODL)."""
