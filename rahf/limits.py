"""What may be asked of rahf, with its limits; dataclasses, commands, sliders and documentation read them here."""

from foundation.limits import TRAINING_LIMITS, Limit

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
    "crop": Limit(16, 128, "64 is a good start."),
    "features": Limit(0),
    "noise": Limit(0, 1),
    "no_prompt": Limit(0, 1, "0.1 is a good start."),
    "text_width": Limit(8),
    "sheet": Limit(8),
    "photograph_share": LIMITS["photograph_share"],
}
IMPROVE: dict[str, Limit] = {
    "steps": Limit(1, 250, "30 is a good start."),
    "guidance": Limit(0, 30, "3 to 8 is usual; up to 1 the prompt alone is followed."),
    "strength": Limit(0, 1, "1 draws anew, 0.7 keeps the rough shape of what was there.", above=True),
    "side": Limit(64, 2048, "Leave it out for the side that the generator was made for."),
    "padding": Limit(0, 1024, "32 is usual; leave it out for the whole picture around the mask."),
    "count": Limit(1, 64, "4 is a good start."),
    "seed": Limit(0, 2**32 - 1, "Give a whole number such as 0."),
}
IMPROVE |= {
    "threshold": Limit(0, 1, "0.25 is usual.", above=True),
    "floor": Limit(0, 1, "0.16 is usual; 0 takes whatever is highest for a fault."),
    "dilation": Limit(0, 0.25, "0.02 of the longer side is usual."),
    "rounds": Limit(1, 10, "3 is a good start."),
    "gain": Limit(0, 1, "0.01 is a good start."),
    "tolerance": Limit(0, 1, "0.05 is a good start."),
}
IMPROVE |= {
    "forward": Limit(0, 10, "0.3 is a good start; 0 switches it off."),
    "backward_steps": Limit(0, 50, "5 is a good start; 0 switches it off."),
    "backward_rate": Limit(0, 1, "0.1 is a good start.", above=True),
    "recurrence": Limit(1, 10, "1 is usual."),
    "share": Limit(0, 1, "0.2 to 0.9 of the steps is usual."),
}
SALIENCY: dict[str, Limit] = {
    "iterations": Limit(1, 200, "6 is a good start."),
    "starts": Limit(1, 32, "1 takes the seed's own noise, 4 the best of four."),
    "balance": Limit(0, 1, "0.5 weighs both alike, 0 takes the whole picture alone."),
    "rate": Limit(0, 2, "0.2 is a good start.", above=True),
    "momentum": Limit(0, 0.99, "0.5 is a good start."),
    "clip": Limit(0.1, 100, "2 is a good start."),
    "mixing": Limit(0.5, 1, "0.7 is a good start with 8 steps, 0.93 with 50."),
    "salient": Limit(0, 1, "0.5 is usual.", above=True),
}
IMPROVE |= {
    "keep": Limit(0, 1, "0.8 keeps good ones only; 0 keeps the best of every prompt."),
    "rank": Limit(1, 256, "8 is a good start."),
    "part": Limit(0, 1),
}
