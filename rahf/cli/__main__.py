"""`python -m rahf.cli`, which `accelerate launch -m rahf.cli` needs."""

from rahf.cli.main import app

app()
