"""The Animate tab as a documented endpoint, for programs and assistants."""

from __future__ import annotations

from gradio.data_classes import FileData

from gid.limits import MotionOptions, RenderOptions
from ui import values
from ui.animate.options import SECONDS, Asked
from ui.animate.service import AnimationService
from ui.endpoints import offer
from ui.errors import explained
from ui.photos import open_photo
from ui.progress import show
from ui.weights_menu import Choice

NO_PHOTO = "There is no photo yet. Upload one, paste one, take one with the camera, or click an example below."
FAILED = "The photo was not animated"


def build_endpoint(choice: Choice[AnimationService]) -> None:
    """Offer `/animate`."""

    def animate(
        photo: FileData,
        strength: float | None = None,
        speed: float = 1,
        seconds: float = SECONDS,
        loop: bool = True,
        seed: int = 0,
        steps: int = MotionOptions.steps,
        guidance: float = MotionOptions.guidance,
        size: int = RenderOptions.size,
        hold_still: bool = MotionOptions.hold_still,
    ) -> tuple[FileData, FileData]:
        """Animate a photo: predict how it moves and render it as a video.

        Args:
            photo: the photo, any common image format, up to 4:1 and 100 megapixels.
            strength: scale of the motion, 0 to 5; 1 is as predicted. Left out, one that looks natural is chosen.
            speed: speed of the motion, 0.1 to 3; below 1 is slow motion.
            seconds: length of the video, 1 to 20, at 30 frames a second.
            loop: whether the end leads back to the start.
            seed: which of the possible motions, 0 or more.
            steps: diffusion steps, 1 to 50.
            guidance: how strictly the photo is followed, 1 to 5.
            size: longer side of the video in pixels, 128 to 1024.
            hold_still: whether pictures of things that do not move, such as a cup, hardly move.

        Returns:
            The path of the mp4 video and of the motion file (safetensors, `gid-motion/1`).
        """
        with explained(FAILED):
            asked = Asked(strength, speed, seconds, loop, seed, steps, guidance, size, hold_still)
            motion, render = asked.motion(), asked.render()
            service = choice.current()
            opened = open_photo(values.upload(photo, NO_PHOTO))
            *_, video = service.animate(opened, motion, render, show)
            return FileData(path=str(video)), FileData(path=str(service.motion_file(opened, motion)))

    offer(animate, "animate", "animate")
