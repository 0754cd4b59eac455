// Mode shapes of a photo: the twin of gid/modes.py. Points are fractions of width and height; displacements inside
// this module are fractions of the photo's long side.

export const DISPLACEMENT_LIMIT = 0.15;
export const PULL_LIMIT = 0.12;
export const ELASTIC_KNEE = 0.6;
const FOLLOW_REGULARIZATION = 0.005;
const STILL = 0.03;
const MOVING = 0.12;
const EXTREME_CELLS = 8;
const ALPHA = 0.4;
const BETA = 0.08;

/** Saturates a length: the identity up to the knee, then smoothly towards the limit. */
export function elastic(length, limit) {
  const ratio = length / limit;
  if (ratio <= ELASTIC_KNEE) return length;
  const rest = 1 - ELASTIC_KNEE;
  return limit * (ELASTIC_KNEE + rest * Math.tanh((ratio - ELASTIC_KNEE) / rest));
}

export function smoothstep(x) {
  const t = Math.min(Math.max(x, 0), 1);
  return t * t * (3 - 2 * t);
}

/** Solves the small symmetric positive definite system matrix x = right by Cholesky; matrix is an array of rows. */
function solve(matrix, right) {
  const n = right.length;
  const lower = matrix.map((row) => row.slice());
  const x = right.slice();
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) {
      let sum = lower[i][j];
      for (let k = 0; k < j; k++) sum -= lower[i][k] * lower[j][k];
      lower[i][j] = i === j ? Math.sqrt(sum) : sum / lower[j][j];
    }
  }
  for (let i = 0; i < n; i++) {
    for (let k = 0; k < i; k++) x[i] -= lower[i][k] * x[k];
    x[i] /= lower[i][i];
  }
  for (let i = n - 1; i >= 0; i--) {
    for (let k = i + 1; k < n; k++) x[i] -= lower[k][i] * x[k];
    x[i] /= lower[i][i];
  }
  return x;
}

/**
 * Mode shapes ready to be pulled. `shapes` is a Float32Array [mode][row][column][x_re, x_im, y_re, y_im].
 * Throws when anything in them is not a number.
 */
export class ModalModel {
  constructor({ width, height, aspect, frequencies, tempo = 1, shapes }) {
    this.width = width;
    this.height = height;
    this.aspect = aspect;
    this.frequencies = Float64Array.from(frequencies);
    this.count = this.frequencies.length;
    this.tempo = tempo;
    this.shapes = shapes;
    this.pixels = width * height;
    if (!this.count || shapes.length !== this.count * this.pixels * 4) throw new Error("The motion is incomplete.");
    if (!shapes.every(Number.isFinite)) throw new Error("The motion contains values that are not numbers.");
    this.omega = this.frequencies.map((f) => 2 * Math.PI * f * tempo);
    this.gamma = this.frequencies.map((f) => tempo * (ALPHA + BETA * (2 * Math.PI * f) ** 2));
    this.ones = new Float64Array(this.count).fill(1);
    this.peaks = new Map();
    this.extremes = this.findExtremes();
  }

  /** Row-major |x_re + i x_im|^2 + |y|^2 summed over modes with the given weights. */
  energy(weights) {
    const energy = new Float64Array(this.pixels);
    for (let j = 0; j < this.count; j++) {
      if (weights[j] === 0) continue;
      const base = j * this.pixels * 4;
      for (let p = 0; p < this.pixels; p++) {
        const o = base + p * 4;
        const a = this.shapes[o];
        const b = this.shapes[o + 1];
        const c = this.shapes[o + 2];
        const d = this.shapes[o + 3];
        energy[p] += weights[j] * (a * a + b * b + c * c + d * d);
      }
    }
    return energy;
  }

  /** The largest amplitude for the given mode weights, remembered. */
  peak(weights) {
    const key = weights.join();
    if (!this.peaks.has(key)) {
      let largest = 0;
      for (const value of this.energy(weights)) largest = Math.max(largest, value);
      if (this.peaks.size > 200) this.peaks.clear();
      this.peaks.set(key, Math.sqrt(largest));
    }
    return this.peaks.get(key);
  }

  /** Shapes at the strongest pixel of each cell of an 8x8 grid, [mode][point][4]. */
  findExtremes() {
    const energy = this.energy(this.ones);
    const chosen = [];
    for (let i = 0; i < EXTREME_CELLS; i++) {
      for (let j = 0; j < EXTREME_CELLS; j++) {
        const top = Math.floor((i * this.height) / EXTREME_CELLS);
        const bottom = Math.floor(((i + 1) * this.height) / EXTREME_CELLS);
        const left = Math.floor((j * this.width) / EXTREME_CELLS);
        const right = Math.floor(((j + 1) * this.width) / EXTREME_CELLS);
        let best = -1;
        for (let y = top; y < bottom; y++) {
          for (let x = left; x < right; x++) {
            const p = y * this.width + x;
            if (best < 0 || energy[p] > energy[best]) best = p;
          }
        }
        if (best >= 0) chosen.push(best);
      }
    }
    const extremes = new Float64Array(this.count * chosen.length * 4);
    for (let j = 0; j < this.count; j++) {
      chosen.forEach((p, k) => {
        for (let c = 0; c < 4; c++) {
          extremes[(j * chosen.length + k) * 4 + c] = this.shapes[(j * this.pixels + p) * 4 + c];
        }
      });
    }
    this.extremeCount = chosen.length;
    return extremes;
  }

  /** Shapes at a point (fractions of width and height), bilinear: Float64Array [mode][4], times the gains. */
  at(x, y, gains = this.ones) {
    const column = Math.min(Math.max(x * this.width - 0.5, 0), this.width - 1);
    const row = Math.min(Math.max(y * this.height - 0.5, 0), this.height - 1);
    const left = Math.min(Math.floor(column), Math.max(this.width - 2, 0));
    const top = Math.min(Math.floor(row), Math.max(this.height - 2, 0));
    const right = Math.min(left + 1, this.width - 1);
    const bottom = Math.min(top + 1, this.height - 1);
    const u = column - left;
    const v = row - top;
    const found = new Float64Array(this.count * 4);
    for (let j = 0; j < this.count; j++) {
      const value = (r, c, k) => this.shapes[(j * this.pixels + r * this.width + c) * 4 + k];
      for (let k = 0; k < 4; k++) {
        const upper = value(top, left, k) * (1 - u) + value(top, right, k) * u;
        const lower = value(bottom, left, k) * (1 - u) + value(bottom, right, k) * u;
        found[j * 4 + k] = gains[j] * (upper * (1 - v) + lower * v);
      }
    }
    return found;
  }

  /** How far the point moves relative to the strongest one, 0 (still) to 1. */
  compliance(x, y, gains = this.ones) {
    const peak = this.peak(gains.map((g) => g * g));
    if (!(peak > 0)) return 0;
    return Math.min(Math.sqrt(this.at(x, y, gains).reduce((sum, value) => sum + value * value, 0)) / peak, 1);
  }

  /** The direction, of unit length, in which the point moves most readily. */
  principalDirection(x, y, gains = this.ones) {
    const here = this.at(x, y, gains);
    let xx = 0;
    let xy = 0;
    let yy = 0;
    for (let o = 0; o < here.length; o += 4) {
      xx += here[o] ** 2 + here[o + 1] ** 2;
      xy += here[o] * here[o + 2] + here[o + 1] * here[o + 3];
      yy += here[o + 2] ** 2 + here[o + 3] ** 2;
    }
    const angle = 0.5 * Math.atan2(2 * xy, xx - yy);
    return [Math.cos(angle), Math.sin(angle)];
  }

  /** Largest displacement of modal coordinates at the extremes, in fractions of the long side. */
  peakAtExtremes(re, im, gains) {
    let largest = 0;
    const n = this.extremeCount;
    for (let k = 0; k < n; k++) {
      let x = 0;
      let y = 0;
      for (let j = 0; j < this.count; j++) {
        const o = (j * n + k) * 4;
        const a = re[j] * gains[j];
        const b = im[j] * gains[j];
        x += this.extremes[o] * a - this.extremes[o + 1] * b;
        y += this.extremes[o + 2] * a - this.extremes[o + 3] * b;
      }
      largest = Math.max(largest, x * x + y * y);
    }
    return Math.sqrt(largest);
  }

  /**
   * Modal coordinates {re, im} that carry each point along its pull; see ModalModel.displace in gid/modes.py.
   * points: [[x, y]] fractions of width and height; pulls: [[dx, dy]] fractions of the long side.
   */
  displace(points, pulls, gains, weights) {
    const re = new Float64Array(this.count);
    const im = new Float64Array(this.count);
    const peak = this.peak(weights.map((w, j) => w * gains[j] ** 2));
    if (!(peak > 0)) return { re, im };
    const shapes = points.map(([x, y]) => this.at(x, y, gains));
    const size = points.length * 2;
    const real = (a, j) => shapes[a >> 1][j * 4 + (a & 1) * 2];
    const imaginary = (a, j) => shapes[a >> 1][j * 4 + (a & 1) * 2 + 1];
    const matrix = [];
    for (let a = 0; a < size; a++) {
      matrix.push([]);
      for (let b = 0; b < size; b++) {
        let sum = 0;
        for (let j = 0; j < this.count; j++) {
          sum += weights[j] * (real(a, j) * real(b, j) + imaginary(a, j) * imaginary(b, j));
        }
        matrix[a].push(sum);
      }
    }
    const target = new Array(size);
    pulls.forEach(([dx, dy], p) => {
      const length = Math.hypot(dx, dy);
      const share = Math.sqrt(matrix[2 * p][2 * p] + matrix[2 * p + 1][2 * p + 1]) / peak;
      const reach = length > 0 ? elastic(length, PULL_LIMIT) / length : 0;
      const factor = reach * smoothstep((share - STILL) / (MOVING - STILL));
      target[2 * p] = dx * factor;
      target[2 * p + 1] = dy * factor;
    });
    for (let a = 0; a < size; a++) matrix[a][a] += FOLLOW_REGULARIZATION * peak * peak;
    const force = solve(matrix, target);
    for (let j = 0; j < this.count; j++) {
      for (let a = 0; a < size; a++) {
        re[j] += weights[j] * real(a, j) * force[a];
        im[j] -= weights[j] * imaginary(a, j) * force[a];
      }
    }
    const largest = this.peakAtExtremes(re, im, gains);
    const scale = largest > 0 ? elastic(largest, DISPLACEMENT_LIMIT) / largest : 1;
    return { re: re.map((v) => v * scale), im: im.map((v) => v * scale) };
  }
}
