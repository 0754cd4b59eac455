"""From the bytes of a picture file to upright sRGB pixels, in steps that `foundation.pictures` puts together."""
