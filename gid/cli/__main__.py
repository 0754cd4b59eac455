"""`python -m gid.cli`, which `accelerate launch -m gid.cli` needs."""

from gid.cli.main import app

app()
