"""Motion itself: the spectral volume, how it is measured, scaled, smoothed and closed into loops."""
