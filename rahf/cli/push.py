"""`rahf push`: a folder of weights to the Hub."""

from foundation.commands.push import push_command
from rahf.model.card import LIBRARY
from rahf.model.loading import KIND

push = push_command(KIND, LIBRARY, "metrics.json")
