"""What every model card of rahf says."""

from foundation.weights.cards import Library

LIBRARY = Library(
    name="rahf",
    task="image-text-to-text",
    tags=("image-quality-assessment", "text-to-image", "rich-human-feedback", "heatmap"),
    what=(
        "A generated image and its prompt in; out come heatmaps of what is implausible and of what does not fit the "
        "prompt, scores of plausibility, alignment, aesthetics and the whole, and the words of the prompt that are not "
        "shown."
    ),
    usage=(
        "from rahf.predictor import Predictor",
        'predictor = Predictor.from_pretrained("{repo}")',
        'feedback = predictor.predict("image.png", "the prompt it was made from")',
    ),
    paper=("Rich Human Feedback for Text-to-Image Generation", "https://arxiv.org/abs/2312.10240"),
)
