// The modal simulation: the twin of gid/poking/simulation.py. Pure, so that it runs in a page, a worker or node.

import { WIND_STEP, WindOnModes, advance } from "./gusts.js";
import { propagator } from "./oscillator.js";

const HOLD_OMEGA = 2 * Math.PI * 6;
const REST = 2e-4;
const SWING_TIME = 1.5;
const SWING_SAMPLES = 48;
const LONGEST_STEP = 60;

export const DEFAULT_KNOBS = Object.freeze({ stiffness: 1, damping: 0.5, mass: 1, strength: 1 });

/** The state of one photo's modes, [part][mode], and what acts on them. Time goes on only in step(). */
export class Simulation {
  constructor(model, knobs = {}) {
    this.model = model;
    this.knobs = { ...DEFAULT_KNOBS, ...knobs };
    this.gains = new Float64Array(model.count).fill(1);
    this.held = new Map();
    this.coefficients = new Float64Array(4);
    this.reset();
  }

  reset() {
    const n = this.model.coordinates;
    this.time = 0;
    this.state = { re: new Float64Array(n), im: new Float64Array(n), vr: new Float64Array(n), vi: new Float64Array(n) };
    this.rest = { re: new Float64Array(n), im: new Float64Array(n) };
    this.winds = [];
    this.held.clear();
    this.target = null;
  }

  setGains(gains) {
    this.gains = Float64Array.from(gains);
    this.aim();
  }

  /** Take hold of the photo at `at` and pull it by `pull`, both fractions of width and height; call again to move. */
  hold(at, pull, pointer = 0) {
    if (![...at, ...pull].every(Number.isFinite)) return;
    this.held.set(pointer, { at, pull: [pull[0] * this.model.aspect[0], pull[1] * this.model.aspect[1]] });
    this.aim();
  }

  release(pointer = 0) {
    this.held.delete(pointer);
    this.aim();
  }

  aim() {
    if (!this.held.size) {
      this.target = null;
      return;
    }
    const held = [...this.held.values()];
    this.target = this.model.displace(
      held.map((h) => h.at),
      held.map((h) => h.pull),
      this.gains,
      this.model.ones,
    );
  }

  /** An impulse that swings the point out by `push` (fractions of width and height). */
  poke(at, push) {
    if (![...at, ...push].every(Number.isFinite)) return;
    const { model, gains, state } = this;
    const pull = [push[0] * model.aspect[0], push[1] * model.aspect[1]];
    const { re, im } = model.displace([at], [pull], gains, model.omega.map((w) => 1 / w));
    const here = model.at(at[0], at[1], gains);
    const members = model.membersAt(at[0], at[1]);
    const reach = (factor) => {
      let x = 0;
      let y = 0;
      for (let j = 0; j < model.count; j++) {
        let qr = 0;
        let qi = 0;
        members.forEach((share, g) => {
          qr += share * re[g * model.count + j];
          qi += share * im[g * model.count + j];
        });
        const f = factor(j);
        x += f * (here[j * 4] * qr - here[j * 4 + 1] * qi);
        y += f * (here[j * 4 + 2] * qr - here[j * 4 + 3] * qi);
      }
      return Math.hypot(x, y);
    };
    const meant = reach(() => 1);
    let peak = 0;
    for (let k = 1; k <= SWING_SAMPLES; k++) {
      const t = (k * SWING_TIME) / SWING_SAMPLES;
      const swing = (j) => propagator(model.omega[j], model.gamma[j], t, this.coefficients)[1] * model.omega[j];
      peak = Math.max(peak, reach(swing));
    }
    if (!(peak > 0)) return;
    const scale = meant / peak / this.knobs.mass;
    for (let k = 0; k < model.coordinates; k++) {
      const omega = model.omega[k % model.count];
      state.vr[k] += omega * re[k] * scale;
      state.vi[k] += omega * im[k] * scale;
    }
  }

  /** Let a wind {strength, angle, duration, seed} come up at the next wind step; returns it. */
  gust(wind) {
    const start = Math.floor(this.time / WIND_STEP + 1e-9) + 1;
    const blowing = new WindOnModes(this.model, wind, this.gains, start);
    this.winds.push(blowing);
    return blowing;
  }

  /** Advance by dt seconds, exactly. A tab that slept longer than a minute wakes as after one. */
  step(dt) {
    if (!Number.isFinite(dt) || dt <= 0) return;
    let remaining = Math.min(dt, LONGEST_STEP);
    while (remaining > 0) {
      const index = Math.floor(this.time / WIND_STEP + 1e-9);
      if (this.winds.length) this.winds = this.winds.filter((wind) => !wind.finished(index));
      const part = this.winds.length ? Math.min(remaining, (index + 1) * WIND_STEP - this.time) : remaining;
      this.advance(part, index);
      this.time += part;
      remaining -= part;
    }
  }

  advance(dt, windIndex) {
    const { model, state, rest, knobs, coefficients } = this;
    const tempo = Math.sqrt(knobs.stiffness / knobs.mass);
    rest.re.fill(0);
    rest.im.fill(0);
    if (!this.target) {
      for (const wind of this.winds) {
        wind.force(windIndex);
        for (let j = 0; j < model.count; j++) {
          const compliance = 1 / (knobs.mass * (model.omega[j] * tempo) ** 2);
          rest.re[j] += wind.re[j] * compliance;
          rest.im[j] += wind.im[j] * compliance;
        }
      }
    }
    if (this.target) {
      propagator(HOLD_OMEGA, 2 * HOLD_OMEGA, dt, coefficients);
      const { re, im } = this.target;
      for (let k = 0; k < model.coordinates; k++) advance(state, k, coefficients, re[k], im[k]);
      return;
    }
    for (let j = 0; j < model.count; j++) {
      propagator(model.omega[j] * tempo, knobs.damping * tempo * model.gamma[j], dt, coefficients);
      // Wind acts on all parts alike.
      for (let k = j; k < model.coordinates; k += model.count) advance(state, k, coefficients, rest.re[j], rest.im[j]);
    }
  }

  /** What to multiply the shapes with: modal coordinates times gains and strength, written into re and im. */
  weights(re, im) {
    for (let k = 0; k < this.model.coordinates; k++) {
      const factor = this.gains[k % this.model.count] * this.knobs.strength;
      re[k] = this.state.re[k] * factor;
      im[k] = this.state.im[k] * factor;
    }
  }

  /** Once nothing moves visibly, takes out the last trace, so that the photo is exactly the photo again. */
  settle() {
    if (this.atRest()) for (const values of Object.values(this.state)) values.fill(0);
  }

  /** Whether nothing moves visibly any more and nothing will. */
  atRest() {
    if (this.held.size || this.winds.length) return false;
    const { model, state } = this;
    const n = model.extremeCount;
    const swings = new Float64Array(model.count);
    for (let k = 0; k < model.coordinates; k++) {
      const j = k % model.count;
      const swing = Math.hypot(state.re[k], state.im[k]) + Math.hypot(state.vr[k], state.vi[k]) / model.omega[j];
      swings[j] = Math.max(swings[j], swing);
    }
    for (let k = 0; k < n; k++) {
      let x = 0;
      let y = 0;
      for (let j = 0; j < model.count; j++) {
        const swing = swings[j];
        const o = (j * n + k) * 4;
        x += swing * this.gains[j] * Math.hypot(model.extremes[o], model.extremes[o + 1]);
        y += swing * this.gains[j] * Math.hypot(model.extremes[o + 2], model.extremes[o + 3]);
      }
      if (Math.max(x, y) >= REST) return false;
    }
    return true;
  }
}
