"""How the feedback network is trained."""
