// Mode shapes of a photo: the twin of gid/poking/modes.py. Points are fractions of width and height; displacements inside
// this module are fractions of the photo's long side.

export const DISPLACEMENT_LIMIT = 0.15;
export const PULL_LIMIT = 0.12;
export const ELASTIC_KNEE = 0.6;
const FOLLOW_REGULARIZATION = 0.005;
const STILL = 0.03;
const MOVING = 0.12;
const HELD = 0.5;
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

/** What takes a length to its elastic value. */
function elasticFactor(length, limit) {
  return length > 0 ? elastic(length, limit) / length : 0;
}

/**
 * Mode shapes ready to be pulled. `shapes` is a Float32Array [mode][row][column][x_re, x_im, y_re, y_im].
 * `parts`, if the photo has some, are {owners, shares, limits} as in gid/poking/parts.py: every part has modal
 * coordinates of its own, [part][mode]; the ground is part 0.
 * Throws when anything in them is not a number.
 */
export class ModalModel {
  constructor({ width, height, aspect, frequencies, tempo = 1, shapes, parts = null }) {
    this.width = width;
    this.height = height;
    this.aspect = aspect;
    this.frequencies = Float64Array.from(frequencies);
    this.count = this.frequencies.length;
    this.tempo = tempo;
    this.shapes = shapes;
    this.pixels = width * height;
    this.parts = parts;
    this.groups = 1 + (parts?.limits.length ?? 0);
    this.coordinates = this.groups * this.count;
    if (!this.count || shapes.length !== this.count * this.pixels * 4) throw new Error("The motion is incomplete.");
    if (!shapes.every(Number.isFinite)) throw new Error("The motion contains values that are not numbers.");
    this.omega = this.frequencies.map((f) => 2 * Math.PI * f * tempo);
    this.gamma = this.frequencies.map((f) => tempo * (ALPHA + BETA * (2 * Math.PI * f) ** 2));
    this.ones = new Float64Array(this.count).fill(1);
    this.peaks = new Map();
    this.extremes = this.findExtremes();
    this.partExtremes = this.findPartExtremes();
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
    this.extremePixels = chosen;
    return extremes;
  }

  /** The strongest pixel of each part but the ground, -1 where it has none. */
  findPartExtremes() {
    const strongest = new Int32Array(this.groups - 1).fill(-1);
    if (!this.parts) return strongest;
    const energy = this.energy(this.ones);
    for (let p = 0; p < this.pixels; p++) {
      if (this.parts.shares[p] < 1) continue;
      const part = this.parts.owners[p] - 1;
      if (strongest[part] < 0 || energy[p] > energy[strongest[part]]) strongest[part] = p;
    }
    return strongest;
  }

  /** Owner and share of the cell at a point: [0, 0] where the photo has no parts. */
  partAt(x, y) {
    if (!this.parts) return [0, 0];
    const row = Math.min(Math.max(Math.floor(y * this.height), 0), this.height - 1);
    const column = Math.min(Math.max(Math.floor(x * this.width), 0), this.width - 1);
    const cell = row * this.width + column;
    return [this.parts.owners[cell], this.parts.shares[cell]];
  }

  /** How much a point belongs to each part; they sum to 1. */
  membersAt(x, y) {
    const members = new Float64Array(this.groups);
    const [owner, share] = this.partAt(x, y);
    members[0] = 1 - share;
    members[owner] += share;
    return members;
  }

  /** Where the elastic pull of a hand at a point ends, in fractions of the long side: less for small things. */
  pullLimit(x, y) {
    const [owner, share] = this.partAt(x, y);
    return owner > 0 && share >= HELD ? Math.min(PULL_LIMIT, this.parts.limits[owner - 1]) : PULL_LIMIT;
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

  /**
   * Largest displacement at the extremes, in fractions of the long side, of modal coordinates of every part, or of one
   * set for all parts alike.
   */
  peakAtExtremes(re, im, gains) {
    let largest = 0;
    const { count, parts } = this;
    const n = this.extremeCount;
    const alike = re.length === count || !parts;
    for (let k = 0; k < n; k++) {
      const share = alike ? 0 : parts.shares[this.extremePixels[k]];
      const own = alike ? 0 : parts.owners[this.extremePixels[k]] * count;
      let x = 0;
      let y = 0;
      for (let j = 0; j < count; j++) {
        const o = (j * n + k) * 4;
        const a = ((1 - share) * re[j] + share * re[own + j]) * gains[j];
        const b = ((1 - share) * im[j] + share * im[own + j]) * gains[j];
        x += this.extremes[o] * a - this.extremes[o + 1] * b;
        y += this.extremes[o + 2] * a - this.extremes[o + 3] * b;
      }
      largest = Math.max(largest, x * x + y * y);
    }
    return Math.sqrt(largest);
  }

  /**
   * Modal coordinates {re, im}, [part][mode], that carry each point along its pull; see ModalModel.displace in
   * gid/poking/modes.py. points: [[x, y]] fractions of width and height; pulls: [[dx, dy]] fractions of the long side.
   */
  displace(points, pulls, gains, weights) {
    const { count, groups } = this;
    const re = new Float64Array(this.coordinates);
    const im = new Float64Array(this.coordinates);
    const peak = this.peak(weights.map((w, j) => w * gains[j] ** 2));
    if (!(peak > 0)) return { re, im };
    const shapes = points.map(([x, y]) => this.at(x, y, gains));
    const members = points.map(([x, y]) => this.membersAt(x, y));
    const size = points.length * 2;
    const real = (a, j) => shapes[a >> 1][j * 4 + (a & 1) * 2];
    const imaginary = (a, j) => shapes[a >> 1][j * 4 + (a & 1) * 2 + 1];
    const matrix = [];
    for (let a = 0; a < size; a++) {
      matrix.push([]);
      for (let b = 0; b < size; b++) {
        let sum = 0;
        for (let j = 0; j < count; j++) {
          sum += weights[j] * (real(a, j) * real(b, j) + imaginary(a, j) * imaginary(b, j));
        }
        matrix[a].push(sum * members[a >> 1].reduce((total, m, g) => total + m * members[b >> 1][g], 0));
      }
    }
    const target = new Array(size);
    pulls.forEach(([dx, dy], p) => {
      const share = Math.sqrt(matrix[2 * p][2 * p] + matrix[2 * p + 1][2 * p + 1]) / peak;
      const reach = elasticFactor(Math.hypot(dx, dy), this.pullLimit(...points[p]));
      const factor = reach * smoothstep((share - STILL) / (MOVING - STILL));
      target[2 * p] = dx * factor;
      target[2 * p + 1] = dy * factor;
    });
    for (let a = 0; a < size; a++) matrix[a][a] += FOLLOW_REGULARIZATION * peak * peak;
    const force = solve(matrix, target);
    for (let a = 0; a < size; a++) {
      for (let g = 0; g < groups; g++) {
        const pull = members[a >> 1][g] * force[a];
        if (pull === 0) continue;
        for (let j = 0; j < count; j++) {
          re[g * count + j] += weights[j] * real(a, j) * pull;
          im[g * count + j] -= weights[j] * imaginary(a, j) * pull;
        }
      }
    }
    this.bound(re, im, gains);
    return { re, im };
  }

  /** Scales modal coordinates down, softly, where they would throw something too far. */
  bound(re, im, gains) {
    const { count, groups } = this;
    for (let g = 1; g < groups; g++) {
      const ofRe = re.subarray(g * count, (g + 1) * count);
      const ofIm = im.subarray(g * count, (g + 1) * count);
      const limit = (Math.min(this.parts.limits[g - 1], PULL_LIMIT) * DISPLACEMENT_LIMIT) / PULL_LIMIT;
      const factor = elasticFactor(this.reachOf(g, ofRe, ofIm, gains), limit);
      for (let j = 0; j < count; j++) {
        ofRe[j] *= factor;
        ofIm[j] *= factor;
      }
    }
    const scale = elasticFactor(this.peakAtExtremes(re, im, gains), DISPLACEMENT_LIMIT);
    for (let k = 0; k < re.length; k++) {
      re[k] *= scale;
      im[k] *= scale;
    }
  }

  /** How far modal coordinates move the strongest pixel of a part. */
  reachOf(part, re, im, gains) {
    const p = this.partExtremes[part - 1];
    if (p < 0) return 0;
    let x = 0;
    let y = 0;
    for (let j = 0; j < this.count; j++) {
      const o = (j * this.pixels + p) * 4;
      x += gains[j] * (this.shapes[o] * re[j] - this.shapes[o + 1] * im[j]);
      y += gains[j] * (this.shapes[o + 2] * re[j] - this.shapes[o + 3] * im[j]);
    }
    return Math.hypot(x, y);
  }
}
