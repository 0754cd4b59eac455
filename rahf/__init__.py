"""Rich Automatic Human Feedback: where and how a generated image is wrong, and which words of its prompt it misses.

from rahf import Predictor

feedback = Predictor.from_pretrained().predict("picture.png", "a red balloon above two bears")
"""

from typing import TYPE_CHECKING

from foundation.exports import lazily

if TYPE_CHECKING:
    from rahf.feedback import Feedback
    from rahf.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Feedback", "Predictor"]

__getattr__ = lazily(__name__, {"Feedback": "rahf.feedback:Feedback", "Predictor": "rahf.predictor:Predictor"})
