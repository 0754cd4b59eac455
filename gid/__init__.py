"""Generative Image Dynamics: one photo in, a spectral volume of its motion out.

from gid import animate, load_photo, load_pipeline

pipeline = load_pipeline()
photo = load_photo("photo.jpg", max_side=512)
volume = pipeline(photo, seed=0).volumes[0]
for frames in animate(photo, volume, pipeline.renderer, num_frames=150): ...
"""

from typing import TYPE_CHECKING

from foundation.exports import lazily

if TYPE_CHECKING:
    from foundation.pictures import Photo, load_photo
    from gid.diffusion.pipeline import GIDPipeline, load_pipeline
    from gid.motion.spectrum import SpectralVolume
    from gid.rendering.animate import animate

__version__ = "0.1.0"
__all__ = ["GIDPipeline", "Photo", "SpectralVolume", "animate", "load_photo", "load_pipeline"]

__getattr__ = lazily(
    __name__,
    {
        "GIDPipeline": "gid.diffusion.pipeline:GIDPipeline",
        "Photo": "foundation.pictures:Photo",
        "SpectralVolume": "gid.motion.spectrum:SpectralVolume",
        "animate": "gid.rendering.animate:animate",
        "load_photo": "foundation.pictures:load_photo",
        "load_pipeline": "gid.diffusion.pipeline:load_pipeline",
    },
)
