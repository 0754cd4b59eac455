"""What may be asked of rahf, with its limits; dataclasses, commands, sliders and documentation read them here."""

from foundation.limits import Limit
from foundation.training import TRAINING_LIMITS

LIMITS: dict[str, Limit] = {
    "batch_size": Limit(1, remedy="8 is a good start."),
    "severity": Limit(0, 1, "0.8 is a good start.", above=True),
    "photograph_share": Limit(0, 1, "0.2 is a good start."),
}
TRAINING: dict[str, Limit] = {
    **TRAINING_LIMITS,
    "tower_rate": Limit(0, 10, "1 trains the image tower as fast as the rest."),
    "grounding": Limit(0),
    "spotting": Limit(0),
    "count": Limit(1),
    "photograph_share": LIMITS["photograph_share"],
}
