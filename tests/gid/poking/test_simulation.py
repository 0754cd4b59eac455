"""Modal simulation against scipy, conservation laws and the limits it states."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from gid.poking.modes import DISPLACEMENT_LIMIT, ModalModel, elastic
from gid.poking.oscillator import propagator
from gid.poking.simulation import Gesture, Knobs, Simulation, poke_displacements
from gid.poking.wind import Wind
from tests.gid.poking.make_poke_vectors import PATH, make_vectors
from tests.swaying import CENTRE, swaying_volume


@pytest.fixture(scope="module")
def model() -> ModalModel:
    return ModalModel.from_volume(swaying_volume())


def shown_at(simulation: Simulation, point: tuple[float, float]) -> np.ndarray:
    """The displacement at a point, before the limit, in fractions of the long side."""
    weights = simulation.q * simulation.gains * simulation.knobs.strength
    return (weights @ simulation.model.at(*point)).real


@pytest.mark.parametrize(("omega", "gamma"), [(3.0, 0.5), (3.0, 6.0), (3.0, 6.0 + 1e-7), (2.0, 40.0), (0.0, 1.0)])
def test_one_step_is_the_solution_of_the_equation(omega: float, gamma: float) -> None:
    dt = 0.73
    a, b, c, d = (float(v[0]) for v in propagator(np.array([omega]), np.array([gamma]), dt))
    for start in ((1.0, 0.0), (0.0, 1.0), (-0.4, 2.5)):
        truth = solve_ivp(
            lambda _, y: [y[1], -gamma * y[1] - omega**2 * y[0]],
            (0, dt),
            start,
            method="DOP853",
            rtol=1e-12,
            atol=1e-12,
        ).y[:, -1]
        assert a * start[0] + b * start[1] == pytest.approx(truth[0], abs=1e-9)
        assert c * start[0] + d * start[1] == pytest.approx(truth[1], abs=1e-9)


def test_simulation_with_knobs_and_wind_agrees_with_scipy(model: ModalModel) -> None:
    knobs = Knobs(stiffness=1.7, damping=0.8, mass=1.3)
    simulation = Simulation(model, knobs)
    simulation.poke(CENTRE, (0.05, 0.02))
    simulation.gust(Wind(0.7, angle=25, seed=4))
    wind = simulation.winds[0]
    tempo = math.sqrt(1.7 / 1.3)
    omega, gamma = tempo * model.omega, 0.8 * tempo * model.gamma
    start = np.concatenate([simulation.q, simulation.v])

    def slope(force: np.ndarray) -> Any:
        return lambda _, y: np.concatenate(
            [y[len(omega) :], force / 1.3 - gamma * y[len(omega) :] - omega**2 * y[: len(omega)]]
        )

    for n in range(40):  # the wind is constant over each of its steps
        truth = solve_ivp(slope(wind.force(n)), (0, 0.05), start, method="DOP853", rtol=1e-11, atol=1e-11)
        start = truth.y[:, -1]
    simulation.step(2.0)
    assert np.allclose(simulation.q, start[: len(omega)], atol=1e-8 * np.abs(simulation.q).max() + 1e-8)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(0.05, 20), st.floats(0, 50), st.lists(st.floats(1e-4, 12), min_size=1, max_size=8), st.integers(0, 1000)
)
def test_energy_never_grows(stiffness: float, damping: float, steps: list[float], seed: int) -> None:
    model = ModalModel.from_volume(swaying_volume(8, 10, 5))
    simulation = Simulation(model, Knobs(stiffness=stiffness, damping=damping))
    rng = np.random.default_rng(seed)
    simulation.q, simulation.v = (rng.standard_normal((2, 4)) + 1j * rng.standard_normal((2, 4))).copy()
    omega = model.omega * math.sqrt(stiffness)
    energy = np.inf
    for dt in steps:
        simulation.step(dt)
        now = float((np.abs(simulation.v) ** 2 + omega**2 * np.abs(simulation.q) ** 2).sum())
        assert now <= energy * (1 + 1e-9)
        energy = now


def test_answers_add_up(model: ModalModel) -> None:
    def play(*pushes: tuple[float, float]) -> np.ndarray:
        simulation = Simulation(model)
        for push in pushes:
            simulation.poke(CENTRE, push)
        simulation.step(0.4)
        return simulation.q

    first, second = (0.02, 0.0), (-0.01, 0.015)
    assert np.allclose(play(first, second), play(first) + play(second), atol=1e-12)
    assert np.allclose(play((0.04, 0.0)), 2 * play(first), rtol=1e-9)


def test_frame_rate_does_not_matter(model: ModalModel) -> None:
    results = []
    for rate in (7, 60, 144):
        simulation = Simulation(model)
        simulation.poke(CENTRE, (0.05, 0.0))
        simulation.gust(Wind(seed=2))
        for _ in range(3 * rate):
            simulation.step(1 / rate)
        results.append(simulation.q)
    assert np.allclose(results[0], results[1], atol=1e-9)
    assert np.allclose(results[0], results[2], atol=1e-9)


def test_a_stalled_tab_only_loses_energy(model: ModalModel) -> None:
    simulation = Simulation(model)
    simulation.hold(CENTRE, (0.1, 0.05))
    simulation.step(10)
    held = np.abs(simulation.q).max()
    simulation.release()
    simulation.step(10)
    assert np.abs(simulation.q).max() < 0.2 * held
    simulation.step(60)
    assert simulation.at_rest()


def test_the_grabbed_point_follows_the_pointer_until_the_elastic_limit(model: ModalModel) -> None:
    aspect = np.array(model.aspect)
    for pull in ((0.03, 0.0), (0.05, 0.02), (-0.04, 0.01)):
        simulation = Simulation(model)
        simulation.hold(CENTRE, pull)
        simulation.step(1)
        assert np.allclose(shown_at(simulation, CENTRE), np.array(pull) * aspect, atol=0.002)
    simulation = Simulation(model)
    simulation.hold(CENTRE, (0.9, 0.0))
    simulation.step(1)
    assert 0.06 < shown_at(simulation, CENTRE)[0] < 0.12


def test_two_pointers_both_hold(model: ModalModel) -> None:
    simulation = Simulation(model)
    left, right = (CENTRE[0] - 0.08, CENTRE[1]), (CENTRE[0] + 0.08, CENTRE[1])
    simulation.hold(left, (0.01, 0.0), pointer=1)
    simulation.hold(right, (0.03, 0.0), pointer=2)
    simulation.step(1)
    assert shown_at(simulation, left)[0] == pytest.approx(0.01, abs=0.004)
    assert shown_at(simulation, right)[0] == pytest.approx(0.03, abs=0.004)
    simulation.release(1)
    assert list(simulation.held) == [2]


def test_nothing_ever_moves_further_than_stated(model: ModalModel) -> None:
    simulation = Simulation(model, Knobs(strength=10, damping=0))
    for n in range(12):
        simulation.poke(CENTRE, (1.0, -1.0))
        simulation.gust(Wind(strength=50, angle=30 * n, seed=n))
        simulation.step(0.3)
        moved = simulation.displacement()
        assert np.isfinite(moved).all()
        assert np.sqrt((moved**2).sum(axis=0)).max() <= DISPLACEMENT_LIMIT + 1e-12
    assert np.sqrt((moved**2).sum(axis=0)).max() > 0.9 * DISPLACEMENT_LIMIT


def test_a_pull_on_a_still_spot_does_nothing(model: ModalModel) -> None:
    assert model.compliance(0.9, 0.1) == 0
    assert model.compliance(*CENTRE) > 0.95
    simulation = Simulation(model)
    simulation.hold((0.9, 0.1), (0.5, 0.5))
    simulation.step(0.5)
    simulation.poke((0.9, 0.1), (0.5, 0.5))
    simulation.step(0.5)
    assert not simulation.q.any()


def test_the_constant_band_takes_no_part() -> None:
    volume = swaying_volume()
    without = volume.coefficients.clone()
    without[0] = 5
    changed = poke_displacements(replace(volume, coefficients=without), CENTRE, (0.05, 0))
    assert torch.equal(changed, poke_displacements(volume, CENTRE, (0.05, 0)))


def test_a_gust_reaches_its_stated_size_and_passes(model: ModalModel) -> None:
    simulation = Simulation(model, Knobs(damping=1))
    simulation.gust(Wind(strength=1, angle=10, seed=9))
    peak = 0.0
    for _ in range(80):
        simulation.step(0.05)
        peak = max(peak, float(np.sqrt((simulation.displacement() ** 2).sum(axis=0)).max()))
    assert peak == pytest.approx(0.4 * DISPLACEMENT_LIMIT, rel=0.1)
    simulation.step(30)
    assert simulation.at_rest()


def test_muted_bands_do_not_move(model: ModalModel) -> None:
    simulation = Simulation(model, Knobs(gains=(0, 0, 1, 0, 0, 0, 0)))
    simulation.poke(CENTRE, (0.05, 0.0))
    simulation.step(0.2)
    assert simulation.q[2] != 0
    assert not np.delete(simulation.q, 2).any()


def test_elastic_is_smooth_and_bounded() -> None:
    lengths = np.linspace(0, 3, 3001)
    found = np.array([elastic(length, 0.5) for length in lengths])
    assert (np.diff(found) >= 0).all()
    assert found.max() <= 0.5
    assert np.allclose(found[lengths <= 0.3], lengths[lengths <= 0.3])
    assert np.abs(np.diff(found, 2)).max() < 1e-5


@pytest.mark.parametrize("kind", ["drag", "poke"])
def test_a_response_starts_and_ends_at_rest(kind: Any) -> None:
    volume = swaying_volume()
    moved = poke_displacements(volume, gestures=[Gesture(CENTRE, (0.05, 0.0), kind)], seconds=2)
    assert moved.shape == (60, 2, 48, 80)
    assert not moved[0].any()
    assert not moved[-1].any()
    assert 0.03 < float(moved[:, 0].abs().max()) < 0.06
    assert float(moved[30:, 0].abs().max()) < float(moved[:30, 0].abs().max())
    step = (moved[1:] - moved[:-1]).abs().amax(dim=(1, 2, 3))
    assert float(step.max()) < 0.03  # no jump between frames


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v: poke_displacements(v), "nothing acts"),
        (lambda v: poke_displacements(v, (0.5, 0.5)), "both a point and a force"),
        (lambda v: poke_displacements(v, (1.5, 0.5), (0.1, 0)), "outside the photo"),
        (lambda v: poke_displacements(v, (math.nan, 0.5), (0.1, 0)), "outside the photo"),
        (lambda v: poke_displacements(v, (0.5, 0.5), (0, 0)), "force is zero"),
        (lambda v: poke_displacements(v, (0.5, 0.5), (math.inf, 0)), "not within one photo size"),
        (lambda v: poke_displacements(v, (0.5, 0.5), (0.1, 0), seconds=0), "length must be"),
        (lambda v: poke_displacements(v, (0.5, 0.5), (0.1, 0), knobs=Knobs(gains=(1.0,))), "gains"),
        (lambda v: Knobs(stiffness=0), "stiffness is 0; it must be from 0.01 to 100"),
        (lambda v: Knobs(damping=math.nan), "damping is nan"),
        (lambda v: Wind(strength=math.nan), "finite"),
        (lambda v: Simulation(ModalModel.from_volume(v)).step(math.nan), "time step"),
        (lambda v: ModalModel.from_volume(replace(v, coefficients=v.coefficients[:1])), "one band"),
    ],
)
def test_bad_input_is_explained(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(swaying_volume(8, 10, 5))


def test_not_a_number_never_gets_in(model: ModalModel) -> None:
    shapes = model.shapes.copy()
    shapes[0, 0, 3, 3] = np.nan
    with pytest.raises(ValueError, match="not numbers"):
        ModalModel(shapes, model.frequencies, model.aspect)


def test_the_shared_vectors_are_up_to_date() -> None:
    """They are what tests/js/dynamics.test.mjs holds the JavaScript simulation to."""

    def compare(found: Any, kept: Any) -> None:
        if isinstance(kept, dict):
            for key in kept:
                compare(found[key], kept[key])
        elif isinstance(kept, list):
            assert len(found) == len(kept)
            for one, other in zip(found, kept, strict=True):
                compare(one, other)
        elif isinstance(kept, float):
            assert found == pytest.approx(kept, rel=1e-7, abs=1e-9)
        else:
            assert found == kept

    compare(make_vectors(), json.loads(PATH.read_text()))
