"""What every model card of gid says."""

from foundation.weights.cards import Library

LIBRARY = Library(
    name="gid",
    task="image-to-video",
    tags=("generative-image-dynamics", "image-animation", "spectral-volume", "diffusion"),
    what=(
        "One photo in, natural motion out: a latent diffusion model that predicts a *spectral volume*, the Fourier "
        "coefficients of every pixel's motion, from which a video, a seamless loop, or a photo that answers a poke is "
        "made."
    ),
    usage=(
        "from gid.diffusion.pipeline import load_pipeline",
        'pipeline = load_pipeline("{repo}")',
        'volume = pipeline("photo.jpg", seed=0).volumes[0]',
    ),
    paper=("Generative Image Dynamics", "https://generative-dynamics.github.io/"),
)
