"""Golden slices of the embedded fusing model: what it says of a fixed picture and prompt, as when it was shipped.

The judge of real pictures has its own beside its tests.
"""

from __future__ import annotations

from copy import copy

import pytest
import torch

from rahf.predictor import Predictor

SCORES = {"plausibility": 0.9873, "alignment": 0.0248, "aesthetics": 0.5722, "overall": 0.5434}
WORDS = [0.9956, 0.9878, 0.9979, 0.9978, 0.9832, 0.979]


def test_the_embedded_model_says_what_it_said() -> None:
    predictor = copy(Predictor.from_pretrained("embedded", "cpu", torch.float32))
    predictor.pictures = None  # this is of the model for composed scenes
    count = torch.arange(3 * 96 * 96, dtype=torch.float32)
    wave = (0.5 + 0.5 * torch.sin(count * 0.37) * torch.cos(count * 0.011)).reshape(3, 96, 96)
    feedback = predictor.predict(wave, "a red cat beside two bears")
    assert feedback.scores == pytest.approx(SCORES, abs=2e-3)
    assert [word.probability for word in feedback.words] == pytest.approx(WORDS, abs=2e-3)
