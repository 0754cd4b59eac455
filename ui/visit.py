"""What one visitor looks at: the page may show another photo before a result of the last one is there."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ui.photos import photo_hash

PATIENCE = 1.0


@dataclass
class Visit:
    """Kept in a ``gr.State``, which hands the same object to every event of a visit.

    Attributes:
        photo: sha256 of the photo on the page.
        shown: sha256 of the photo that the results on the page are of.
    """

    photo: str | None = None
    shown: str | None = None

    def look_at(self, source: str | None) -> bool:
        """Another photo is on the page; returns whether the results are not of it."""
        self.photo = photo_hash(source) if source is not None else None
        if self.photo == self.shown:
            return False
        self.shown = None
        return True

    def begin(self, source: str) -> bool:
        """A result of a photo is going to be made; returns whether that photo is still on the page.

        A click on an example asks for a result at the same moment as it changes the photo, so that is waited for.
        """
        photo, patience = photo_hash(source), time.monotonic() + PATIENCE
        while self.photo not in (None, photo) and time.monotonic() < patience:
            time.sleep(0.02)
        if self.photo not in (None, photo):
            return False
        self.shown = photo
        return True

    @property
    def goes_on(self) -> bool:
        """Whether the photo that a result was begun of is still on the page."""
        return self.shown is not None
