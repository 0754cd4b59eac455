"""Photo-guided upsampling: bilinear where nothing speaks against it, along the photo's edges where something does."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gid.motion.upsampling import PhotoGuide


def test_a_photo_of_one_colour_gives_bilinear_interpolation():
    maps = torch.randn(1, 3, 9, 13)
    guide = PhotoGuide(torch.full((1, 3, 50, 71), 0.4), 9, 13)
    expected = F.interpolate(maps, (50, 71), mode="bilinear", align_corners=False)
    torch.testing.assert_close(guide(maps), expected, atol=1e-5, rtol=1e-5)


def test_texture_does_not_enter_even_motion():
    guide = PhotoGuide(torch.rand(1, 3, 40, 60), 5, 8)
    torch.testing.assert_close(guide(torch.full((1, 2, 5, 8), 0.7)), torch.full((1, 2, 40, 60), 0.7))


def test_motion_edges_move_to_the_photos_edges():
    photo = torch.zeros(1, 3, 32, 64)
    photo[..., 36:] = 1.0  # not on the border of a coarse cell
    moving = F.interpolate(photo[:, :1], (4, 8), mode="area")
    guided = PhotoGuide(photo, 4, 8)(moving)
    plain = F.interpolate(moving, (32, 64), mode="bilinear", align_corners=False)
    truth = photo[:, :1]
    assert (guided - truth).abs().mean() < 0.5 * (plain - truth).abs().mean()
