"""`gid push`: a folder of weights to the Hub."""

from commons.push_command import push_command
from gid.loading import KIND
from gid.model_card import LIBRARY

push = push_command(KIND, LIBRARY, "report.json")
