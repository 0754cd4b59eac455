"""Softmax splatting (Niklaus and Liu, CVPR 2020): forward warping with gradients, on every device."""

from gid.rendering.splatting.function import Implementation, Mode, coverage, splat, splat_sums

__all__ = ["Implementation", "Mode", "coverage", "splat", "splat_sums"]
