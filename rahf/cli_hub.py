"""`rahf push`: a folder of weights to the Hub."""

from commons.push_command import push_command

from .loading import KIND
from .model_card import LIBRARY

push = push_command(KIND, LIBRARY, "metrics.json")
