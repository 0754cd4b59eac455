"""`gid push`: a folder of weights to the Hub."""

from foundation.commands.push import push_command
from gid.diffusion.loading import KIND
from gid.model_card import LIBRARY

push = push_command(KIND, LIBRARY, "report.json")
