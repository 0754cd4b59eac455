"""Writes tests/gid/poking/poke_vectors.json: what the Python simulation does, for the JavaScript one to agree with.

Run it after a deliberate change of the physics: python tests/gid/poking/make_poke_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from gid.poking.modes import ModalModel, elastic
from gid.poking.oscillator import propagator
from gid.poking.parts import Parts
from gid.poking.simulation import Knobs, Simulation
from gid.poking.wind import Wind, hash_unit

PATH = Path(__file__).with_name("poke_vectors.json")
POINTS = ((0.5, 0.5), (0.31, 0.62), (0.8, 0.2))


def small_parts() -> Parts:
    """Two parts side by side on 12x9 cells and the ground about them."""
    x = np.arange(12)[None, :].repeat(9, 0)
    owners = np.where(x < 6, 1, 2)
    shares = np.select([(x >= 3) & (x <= 4), (x >= 7) & (x <= 8), x == 5], [1.0, 1.0, 0.3], 0.0)
    return Parts(owners, shares, np.array([0.02, 0.3]))


def small_model(parts: Parts | None = None) -> ModalModel:
    """Six modes on 12x9 pixels: a swaying blob with its own phases. Rounded to float32, as JavaScript stores them."""
    rng = np.random.default_rng(7)
    y, x = np.mgrid[0:9, 0:12]
    blob = np.exp(-((x - 6) ** 2) / 12 - (y - 4.5) ** 2 / 8)
    shapes = np.zeros((6, 2, 9, 12), dtype=np.complex128)
    for j in range(6):
        phase = rng.uniform(0, 2 * np.pi, 2)[:, None, None] + 0.3 * rng.standard_normal((2, 9, 12))
        shapes[j] = 0.02 / (j + 1) * blob * np.array([1.0, 0.4])[:, None, None] * np.exp(1j * phase)
    shapes = shapes.astype(np.complex64).astype(np.complex128)
    return ModalModel(shapes, 0.2 * np.arange(1.0, 7.0, dtype=np.float64), (1.0, 0.75), 1.7, parts)


SCENARIOS: list[dict[str, Any]] = [
    {
        "name": "drag and release",
        "knobs": {},
        "steps": [1 / 60] * 300,
        "events": [
            {"step": 0, "do": "hold", "at": [0.5, 0.5], "pull": [0.03, 0.02]},
            {"step": 10, "do": "hold", "at": [0.5, 0.5], "pull": [0.3, -0.1]},
            {"step": 30, "do": "release"},
        ],
    },
    {
        "name": "two pointers, muted bands, uneven frames",
        "knobs": {"stiffness": 2.0, "damping": 1.5, "mass": 0.7, "strength": 1.3, "gains": [1, 0, 1, 0.5, 1, 2]},
        "steps": [0.004, 0.021, 0.05, 0.017] * 54,
        "events": [
            {"step": 0, "do": "hold", "at": [0.45, 0.5], "pull": [0.05, 0.0], "pointer": 1},
            {"step": 4, "do": "hold", "at": [0.6, 0.55], "pull": [-0.02, 0.04], "pointer": 2},
            {"step": 40, "do": "release", "pointer": 1},
            {"step": 60, "do": "release", "pointer": 2},
            {"step": 100, "do": "poke", "at": [0.31, 0.62], "push": [0.0, -0.05]},
        ],
    },
    {
        "name": "pokes and a gust",
        "knobs": {"damping": 0.1},
        "steps": [1 / 30] * 150,
        "events": [
            {"step": 3, "do": "poke", "at": [0.5, 0.5], "push": [0.04, 0.0]},
            {"step": 20, "do": "gust", "strength": 0.8, "angle": 20.0, "duration": 2.5, "seed": 11},
            {"step": 25, "do": "poke", "at": [0.52, 0.4], "push": [-0.02, 0.03]},
        ],
    },
    {
        "name": "parts of their own: one is held, then the ground, then one is poked in the wind",
        "parts": True,
        "knobs": {"gains": [1, 1, 0.5, 0, 1, 1]},
        "steps": [1 / 60] * 240,
        "events": [
            {"step": 0, "do": "hold", "at": [0.31, 0.5], "pull": [0.2, 0.02], "pointer": 1},
            {"step": 5, "do": "hold", "at": [0.62, 0.45], "pull": [-0.2, 0.1], "pointer": 2},
            {"step": 30, "do": "release", "pointer": 1},
            {"step": 40, "do": "release", "pointer": 2},
            {"step": 50, "do": "hold", "at": [0.45, 0.5], "pull": [0.05, 0.05]},
            {"step": 70, "do": "release"},
            {"step": 80, "do": "poke", "at": [0.31, 0.62], "push": [0.1, 0.0]},
            {"step": 90, "do": "gust", "strength": 0.6, "angle": 5.0, "duration": 1.5, "seed": 3},
        ],
    },
    {
        "name": "steady wind, over-damped, then a stalled tab",
        "knobs": {"damping": 40.0, "stiffness": 0.5},
        "steps": [1 / 60] * 60 + [10.0] + [1 / 60] * 10,
        "events": [
            {"step": 0, "do": "gust", "strength": 1.0, "angle": 180.0, "duration": "infinite", "seed": 5},
            {"step": 30, "do": "poke", "at": [0.5, 0.5], "push": [0.05, 0.05]},
        ],
    },
]


def apply(simulation: Simulation, event: dict[str, Any]) -> None:
    """Act out one event of a scenario."""
    kind, pointer = event["do"], event.get("pointer", 0)
    if kind == "hold":
        simulation.hold(tuple(event["at"]), tuple(event["pull"]), pointer)
    elif kind == "release":
        simulation.release(pointer)
    elif kind == "poke":
        simulation.poke(tuple(event["at"]), tuple(event["push"]))
    else:
        duration = float("inf") if event["duration"] == "infinite" else event["duration"]
        simulation.gust(Wind(event["strength"], event["angle"], duration, event["seed"]))


def run(scenario: dict[str, Any], model: ModalModel) -> dict[str, Any]:
    """Modal coordinates and the displacement at a few points, every tenth step and at the end."""
    knobs = dict(scenario["knobs"])
    if "gains" in knobs:
        knobs["gains"] = tuple(knobs["gains"])
    simulation = Simulation(model, Knobs(**knobs))
    states = []
    for n, dt in enumerate(scenario["steps"]):
        for event in scenario["events"]:
            if event["step"] == n:
                apply(simulation, event)
        simulation.step(dt)
        if n % 10 == 9 or n == len(scenario["steps"]) - 1:
            moved = [(simulation.weights @ model.grouped_at(*point)).real.tolist() for point in POINTS]
            states.append({"step": n, "re": simulation.q.real.tolist(), "im": simulation.q.imag.tolist(), "at": moved})
    return {**scenario, "states": states, "at_rest": simulation.at_rest()}


def make_vectors() -> dict[str, Any]:
    """Everything the JavaScript tests read."""
    model, parts = small_model(), small_parts()
    channels = np.stack(
        [model.shapes[:, 0].real, model.shapes[:, 0].imag, model.shapes[:, 1].real, model.shapes[:, 1].imag], axis=-1
    )
    steps = []
    for omega, gamma in ((2.0, 0.4), (2.0, 4.0), (2.0, 4.0000001), (1.0, 30.0), (18.8, 28.7), (50.0, 0.0)):
        for dt in (0.0, 1 / 60, 0.1, 10.0):
            result = [float(v[0]) for v in propagator(np.array([omega]), np.array([gamma]), dt)]
            steps.append({"omega": omega, "gamma": gamma, "dt": dt, "step": result})
    return {
        "model": {
            "width": 12,
            "height": 9,
            "aspect": list(model.aspect),
            "tempo": model.tempo,
            "frequencies": model.frequencies.tolist(),
            "shapes": [float(np.float32(v)) for v in channels.reshape(-1)],
        },
        "points": POINTS,
        "propagators": steps,
        "hashes": [[s, i, hash_unit(s, i)] for s, i in ((0, 0), (1, 2), (12345, 678), (4294967295, -3))],
        "elastic": [[length, elastic(length, 0.12)] for length in (0.0, 0.05, 0.072, 0.1, 1.0)],
        "compliance": [model.compliance(*point) for point in POINTS],
        "parts": {
            "owners": parts.owners.ravel().tolist(),
            "shares": parts.shares.ravel().tolist(),
            "limits": parts.limits.tolist(),
        },
        "pull_limits": [small_model(parts).pull_limit(*point) for point in POINTS],
        "scenarios": [run(scenario, small_model(parts) if scenario.get("parts") else model) for scenario in SCENARIOS],
    }


if __name__ == "__main__":
    PATH.write_text(json.dumps(make_vectors()) + "\n")
