// The damped harmonic oscillator, stepped exactly: the twin of gid/oscillator.py.

/**
 * The exact 2x2 map of y'' + gamma y' + omega^2 y = 0 over dt seconds, written into out as [a, b, c, d]:
 * y(t+dt) = a y + b v, v(t+dt) = c y + d v. A contraction for every dt, so that no step is too long.
 */
export function propagator(omega, gamma, dt, out) {
  const half = gamma / 2;
  const discriminant = omega * omega - half * half;
  let c;
  let s;
  if (discriminant >= 0) {
    const swing = Math.sqrt(discriminant);
    const decay = Math.exp(-half * dt);
    c = decay * Math.cos(swing * dt);
    s = swing > 0 ? (decay * Math.sin(swing * dt)) / swing : decay * dt;
  } else {
    // Two negative roots; the slow one as omega^2 / fast keeps its digits.
    const spread = Math.sqrt(-discriminant);
    const fast = half + spread;
    const slowDecay = Math.exp((-omega * omega * dt) / fast);
    s = (slowDecay * -Math.expm1(-2 * spread * dt)) / (2 * spread);
    c = 0.5 * (slowDecay + Math.exp(-fast * dt));
  }
  out[0] = c + half * s;
  out[1] = s;
  out[2] = -omega * omega * s;
  out[3] = c - half * s;
  return out;
}
