"""How each part of the pipeline is trained."""
