"""From a photo to its spectral volume: the networks, the pipeline, and where weights come from."""
