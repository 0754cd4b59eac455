"""What may be asked of rahf, with its limits; dataclasses, commands, sliders and documentation read them here."""

from foundation.limits import Limit
from foundation.training import TRAINING_LIMITS

TRAINING: dict[str, Limit] = {
    **TRAINING_LIMITS,
    "tower_rate": Limit(0, 10, "1 trains the image tower as fast as the rest."),
    "grounding": Limit(0),
    "spotting": Limit(0),
}
