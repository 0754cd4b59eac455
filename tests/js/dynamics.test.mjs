// The JavaScript simulation against vectors written by the Python one: node --test tests/js

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { Simulation } from "../../gid/poking/canvas/dynamics.js";
import { hashUnit } from "../../gid/poking/canvas/gusts.js";
import { ModalModel, elastic } from "../../gid/poking/canvas/modes.js";
import { propagator } from "../../gid/poking/canvas/oscillator.js";

const vectors = JSON.parse(readFileSync(new URL("../gid/poking/poke_vectors.json", import.meta.url)));
const shapes = Float32Array.from(vectors.model.shapes);
const makeModel = (parts = null) => new ModalModel({ ...vectors.model, shapes, parts });

function near(actual, expected, tolerance, what) {
  assert.ok(Math.abs(actual - expected) <= tolerance, `${what}: ${actual} is not ${expected}`);
}

function act(simulation, event) {
  const pointer = event.pointer ?? 0;
  if (event.do === "hold") simulation.hold(event.at, event.pull, pointer);
  else if (event.do === "release") simulation.release(pointer);
  else if (event.do === "poke") simulation.poke(event.at, event.push);
  else simulation.gust({ ...event, duration: event.duration === "infinite" ? Infinity : event.duration });
}

test("propagators", () => {
  for (const { omega, gamma, dt, step } of vectors.propagators) {
    const found = propagator(omega, gamma, dt, new Float64Array(4));
    step.forEach((value, k) => near(found[k], value, 1e-9 * Math.max(1, omega * omega), `${omega} ${gamma} ${dt}`));
  }
});

test("a hand's limit is less on small parts", () => {
  const model = makeModel(vectors.parts);
  vectors.points.forEach(([x, y], k) => near(model.pullLimit(x, y), vectors.pull_limits[k], 1e-12, "limit"));
});

test("hashes, elastic limit and compliance", () => {
  for (const [seed, index, value] of vectors.hashes) assert.equal(hashUnit(seed, index), value);
  for (const [length, value] of vectors.elastic) near(elastic(length, 0.12), value, 1e-12, "elastic");
  const model = makeModel();
  vectors.points.forEach(([x, y], k) => near(model.compliance(x, y), vectors.compliance[k], 1e-9, "compliance"));
});

for (const scenario of vectors.scenarios) {
  test(scenario.name, () => {
    const model = makeModel(scenario.parts ? vectors.parts : null);
    const { gains, ...knobs } = scenario.knobs;
    const simulation = new Simulation(model, knobs);
    if (gains) simulation.setGains(gains);
    const expected = new Map(scenario.states.map((state) => [state.step, state]));
    const re = new Float64Array(model.coordinates);
    const im = new Float64Array(model.coordinates);
    scenario.steps.forEach((dt, n) => {
      scenario.events.filter((event) => event.step === n).forEach((event) => act(simulation, event));
      simulation.step(dt);
      const state = expected.get(n);
      if (!state) return;
      assert.equal(state.re.length, model.coordinates);
      for (let j = 0; j < model.coordinates; j++) {
        const scale = Math.max(1, Math.hypot(state.re[j], state.im[j]));
        near(simulation.state.re[j], state.re[j], 1e-5 * scale, `step ${n}, mode ${j}`);
        near(simulation.state.im[j], state.im[j], 1e-5 * scale, `step ${n}, mode ${j}`);
      }
      simulation.weights(re, im);
      vectors.points.forEach(([x, y], k) => {
        const here = model.at(x, y);
        let dx = 0;
        let dy = 0;
        model.membersAt(x, y).forEach((share, part) => {
          for (let j = 0; j < model.count; j++) {
            const n = part * model.count + j;
            dx += share * (here[j * 4] * re[n] - here[j * 4 + 1] * im[n]);
            dy += share * (here[j * 4 + 2] * re[n] - here[j * 4 + 3] * im[n]);
          }
        });
        near(dx, state.at[k][0], 1e-5, `x at step ${n}`);
        near(dy, state.at[k][1], 1e-5, `y at step ${n}`);
      });
    });
    assert.equal(simulation.atRest(), scenario.at_rest);
  });
}

test("values that are not numbers never get in", () => {
  const shapes = Float32Array.from(vectors.model.shapes);
  shapes[5] = NaN;
  assert.throws(() => new ModalModel({ ...vectors.model, shapes }), /not numbers/);
  const simulation = new Simulation(makeModel());
  simulation.hold([NaN, 0.5], [0.1, 0]);
  simulation.poke([0.5, 0.5], [Infinity, 0]);
  simulation.step(NaN);
  simulation.step(-1);
  simulation.step(0.1);
  assert.ok(simulation.atRest());
});
