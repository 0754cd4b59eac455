// Wind: a seeded front that travels over the photo; the twin of gid/gusts.py.

import { DISPLACEMENT_LIMIT } from "./modes.js";
import { propagator } from "./oscillator.js";

export const WIND_STEP = 0.05;
const SLICES = 16;
const TRAVEL_TIME = 0.8;
const GUST_LIMIT_SHARE = 0.4;

/** A number in [0, 1) from two integers: the same as in Python. */
export function hashUnit(seed, index) {
  let x = (Math.imul(index, 0x9e3779b1) + Math.imul(seed, 0x85ebca6b) + 0x27d4eb2f) >>> 0;
  x ^= x >>> 16;
  x = Math.imul(x, 0x7feb352d) >>> 0;
  x ^= x >>> 15;
  x = Math.imul(x, 0x846ca68b) >>> 0;
  x ^= x >>> 16;
  return (x >>> 0) / 4294967296;
}

function smoothNoise(seed, t) {
  const index = Math.floor(t);
  const mix = 0.5 - 0.5 * Math.cos(Math.PI * (t - index));
  return hashUnit(seed, index) * (1 - mix) + hashUnit(seed, index + 1) * mix;
}

/** Wind speed t seconds after the front arrives; duration may be Infinity for a wind that goes on. */
export function windProfile({ duration, seed }, t) {
  if (t <= 0 || t >= duration) return 0;
  const rough = 0.5 + smoothNoise(seed, 3 * t);
  if (duration === Infinity) {
    const start = Math.min(t, 1);
    return start * start * (3 - 2 * start) * (0.4 * rough + smoothNoise(seed + 1, 0.6 * t));
  }
  return Math.sin((Math.PI * t) / duration) ** 2 * rough;
}

/** A wind {strength, angle, duration, seed} projected on the modes of a photo. */
export class WindOnModes {
  constructor(model, wind, gains, start) {
    this.wind = { strength: 1, angle: 0, duration: 2.5, seed: 0, ...wind };
    this.start = start;
    this.count = model.count;
    this.slices = sliceForces(model, this.wind.angle, gains);
    this.re = new Float64Array(this.count);
    this.im = new Float64Array(this.count);
    this.scale = this.automaticScale(model, gains);
  }

  unitForce(index) {
    const time = index * WIND_STEP;
    this.re.fill(0);
    this.im.fill(0);
    for (let s = 0; s < SLICES; s++) {
      const speed = windProfile(this.wind, time - (TRAVEL_TIME * (s + 0.5)) / SLICES);
      if (speed === 0) continue;
      for (let j = 0; j < this.count; j++) {
        this.re[j] += this.slices.re[j * SLICES + s] * speed;
        this.im[j] += this.slices.im[j * SLICES + s] * speed;
      }
    }
  }

  /** Leaves the force of a wind step of the simulation's clock in re and im. */
  force(step) {
    this.unitForce(step - this.start);
    const scale = this.scale * this.wind.strength;
    for (let j = 0; j < this.count; j++) {
      this.re[j] *= scale;
      this.im[j] *= scale;
    }
  }

  finished(step) {
    return (step - this.start) * WIND_STEP > this.wind.duration + TRAVEL_TIME;
  }

  /** Strength 1 moves the strongest point by a set share of the limit: try the wind once and measure. */
  automaticScale(model, gains) {
    const n = this.count;
    const state = { re: new Float64Array(n), im: new Float64Array(n), vr: new Float64Array(n), vi: new Float64Array(n) };
    const step = new Float64Array(4);
    let peak = 0;
    for (let index = 0; index < Math.round(4 / WIND_STEP); index++) {
      this.unitForce(index);
      for (let j = 0; j < n; j++) {
        propagator(model.omega[j], model.gamma[j], WIND_STEP, step);
        advance(state, j, step, this.re[j] / model.omega[j] ** 2, this.im[j] / model.omega[j] ** 2);
      }
      peak = Math.max(peak, model.peakAtExtremes(state.re, state.im, gains));
    }
    return peak > 0 ? (GUST_LIMIT_SHARE * DISPLACEMENT_LIMIT) / peak : 0;
  }
}

/** Moves mode j of state {re, im, vr, vi} by one step [a, b, c, d] about the rest position (restRe, restIm). */
export function advance(state, j, [a, b, c, d], restRe, restIm) {
  const re = state.re[j] - restRe;
  const im = state.im[j] - restIm;
  const vr = state.vr[j];
  const vi = state.vi[j];
  state.re[j] = restRe + a * re + b * vr;
  state.im[j] = restIm + a * im + b * vi;
  state.vr[j] = c * re + d * vr;
  state.vi[j] = c * im + d * vi;
}

function sliceForces(model, angle, gains) {
  const dx = Math.cos((angle * Math.PI) / 180);
  const dy = Math.sin((angle * Math.PI) / 180);
  const [ax, ay] = model.aspect;
  const corners = [0, ay * dy, ax * dx, ax * dx + ay * dy];
  const low = Math.min(...corners);
  const high = Math.max(...corners);
  const re = new Float64Array(model.count * SLICES);
  const im = new Float64Array(model.count * SLICES);
  for (let y = 0; y < model.height; y++) {
    for (let x = 0; x < model.width; x++) {
      const along = ((x + 0.5) / model.width) * ax * dx + ((y + 0.5) / model.height) * ay * dy;
      const s = Math.min(Math.max(Math.trunc(((along - low) / (high - low)) * SLICES), 0), SLICES - 1);
      const p = (y * model.width + x) * 4;
      for (let j = 0; j < model.count; j++) {
        const o = j * model.pixels * 4 + p;
        re[j * SLICES + s] += gains[j] * (model.shapes[o] * dx + model.shapes[o + 2] * dy);
        im[j * SLICES + s] -= gains[j] * (model.shapes[o + 1] * dx + model.shapes[o + 3] * dy);
      }
    }
  }
  return { re: re.map((v) => v / model.pixels), im: im.map((v) => v / model.pixels) };
}
