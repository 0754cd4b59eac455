"""The Poke tab as a documented endpoint, for programs and assistants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gradio.data_classes import FileData

from gid.limits import MotionOptions
from gid.poking.responses import Response, gesture_at
from gid.poking.simulation import Knobs
from gid.poking.wind import Wind
from ui import values
from ui.endpoints import offer
from ui.errors import explained
from ui.photos import open_photo
from ui.poke.service import PokeService
from ui.progress import show

FAILED = "The photo was not poked"
NO_PHOTO = "There is no photo yet. Upload one here or in the Animate tab."
KINDS = ("drag", "poke")


@dataclass(frozen=True)
class AskedPoke:
    """The values as they came, in the order of the endpoint; nothing in them is trusted."""

    x: Any
    y: Any
    dx: Any
    dy: Any
    kind: Any
    hold: Any
    gust: Any
    gust_angle: Any
    seconds: Any
    stiffness: Any
    damping: Any
    strength: Any
    seed: Any

    def motion(self) -> MotionOptions:
        """What decides the motion. Raises ValueError naming value, limit and remedy."""
        return MotionOptions(seed=values.whole("seed", self.seed))

    def response(self, size: tuple[int, int]) -> Response:
        """What to do to a photo of size (width, height). Raises ValueError naming value, limit and remedy."""
        words = ("kind", "seed")
        given = {name: values.finite(name, value) for name, value in vars(self).items() if name not in words}
        kind, seed = values.choice("kind", self.kind, KINDS), values.whole("seed", self.seed)
        at, force, gust = (given["x"], given["y"]), (given["dx"], given["dy"]), given["gust"]
        gestures = (gesture_at(at, force, size, kind, given["hold"]),) if any(force) else ()
        wind = Wind(gust, given["gust_angle"], seed=seed) if gust else None
        knobs = Knobs(stiffness=given["stiffness"], damping=given["damping"], strength=given["strength"])
        return Response(gestures, wind, given["seconds"], knobs=knobs)


def build_endpoint(poke_service: PokeService) -> None:
    """Offer `/poke`."""

    def poke(
        photo: FileData,
        x: float = 0,
        y: float = 0,
        dx: float = 0,
        dy: float = 0,
        kind: Literal["drag", "poke"] = "drag",
        hold: float = 0.5,
        gust: float = 0,
        gust_angle: float = 0,
        seconds: float = 3,
        stiffness: float = 1,
        damping: float = 0.5,
        strength: float = 1,
        seed: int = 0,
    ) -> FileData:
        """Pull, poke or blow at a photo and render how it swings, from rest to rest.

        Args:
            photo: the photo, any common image format, up to 4:1 and 100 megapixels.
            x: where to take hold, in pixels of the photo from the left.
            y: where to take hold, in pixels of the photo from the top.
            dx: how far to pull to the right, in pixels; 0 for both dx and dy means no pull, only the gust.
            dy: how far to pull down, in pixels.
            kind: "drag" pulls and lets go, "poke" is a short push.
            hold: seconds until a drag lets go, above 0 to 10.
            gust: strength of a gust of wind, 0 for none.
            gust_angle: where the wind blows in degrees, 0 right, 90 down.
            seconds: length of the video, 0.5 to 20, at 30 frames a second.
            stiffness: above 1 swings faster, 0.01 to 100.
            damping: 1 is the paper's, smaller rings longer, 0 to 100.
            strength: scale of what is shown, 0 to 10.
            seed: which of the possible motions of the photo, 0 or more.

        Returns:
            The path of the mp4 video.
        """
        with explained(FAILED):
            asked = AskedPoke(x, y, dx, dy, kind, hold, gust, gust_angle, seconds, stiffness, damping, strength, seed)
            opened = open_photo(values.upload(photo, NO_PHOTO))
            video = poke_service.answer(opened, asked.motion(), asked.response(opened.size), show)
            return FileData(path=str(video))

    offer(poke, "poke", "animate")
