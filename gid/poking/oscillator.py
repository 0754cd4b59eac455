"""The damped harmonic oscillator, stepped exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def propagator(omega: Array, gamma: Array, dt: float) -> tuple[Array, Array, Array, Array]:
    """The exact 2x2 map of y'' + gamma y' + omega^2 y = 0 over `dt` seconds.

    omega: (J,) angular frequencies in rad/s, >= 0. gamma: (J,) damping rates in 1/s, >= 0. dt: seconds, >= 0.
    Returns a, b, c, d, each (J,): y(t+dt) = a y + b v and v(t+dt) = c y + d v.

    With l = gamma/2 the solution is exp(-l t) times cos and sin (under-damped), cosh and sinh (over-damped) or 1 and t
    (critical). Written with C ~ "cos" and S ~ "sin over frequency" the three cases share one matrix,
    [[C + l S, S], [-omega^2 S, C - l S]], which is a contraction for every dt: no step is too long.
    """
    half = gamma / 2
    discriminant = omega**2 - half**2
    swing = np.sqrt(np.maximum(discriminant, 0.0))
    decay = np.exp(-half * dt)
    under_c = decay * np.cos(swing * dt)
    under_s = decay * dt * np.sinc(swing * dt / np.pi)
    # Over-damped: exponentials of the two (negative) roots, the slow one as omega^2 / fast to keep its digits.
    over = discriminant < 0
    spread = np.sqrt(np.where(over, -discriminant, 0.0))
    fast = np.where(over, half + spread, 1.0)
    slow = omega**2 / fast
    slow_decay = np.exp(-slow * dt)
    gap = 2 * spread
    rise = np.where(gap > 0, -np.expm1(-gap * dt) / np.where(gap > 0, gap, 1.0), dt)
    over_s = slow_decay * rise
    over_c = 0.5 * (slow_decay + np.exp(-fast * dt))
    c = np.where(over, over_c, under_c)
    s = np.where(over, over_s, under_s)
    return c + half * s, s, -(omega**2) * s, c - half * s
