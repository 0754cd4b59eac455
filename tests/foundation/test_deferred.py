"""Deferred packages, and that what a command or the page imports at its start stays light; each in a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Costly, and of no use to who animates a photo or asks for feedback.
HEAVY = (
    "diffusers.loaders",
    "diffusers.models.unets.unet_2d_condition",
    "gradio",
    "matplotlib",
    "pandas",
    "peft",
    "scipy.stats",
    "torch._dynamo",
    "transformers.modeling_utils",
)


def run(source: str, *folders: Path) -> str:
    """What a fresh process prints for a source."""
    path = os.pathsep.join(map(str, (ROOT, *folders)))
    done = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package ``outer`` with ``outer.inner``, whose own code says that it runs, above ``outer.inner.leaf``."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (tmp_path / "outer" / "__init__.py").write_text("")
    (inner / "__init__.py").write_text(
        "print('ran')\nfrom outer.inner.leaf import value\nfrom outer.inner.other import more\n"
    )
    (inner / "leaf.py").write_text("value = object()\n")
    (inner / "other.py").write_text("more = 2\n")
    return tmp_path


OPEN = "from foundation.deferred import deferring\nwith deferring({names}):\n    import outer.inner.leaf as leaf\n"


def test_a_module_is_had_without_the_code_of_its_package(package: Path) -> None:
    source = OPEN.format(names=("outer.inner",)) + "import outer\nprint(leaf.value is outer.inner.leaf.value)"
    assert run(source, package) == "True"


@pytest.mark.parametrize(
    "asked", ["outer.inner.more", "__import__('outer.inner', fromlist=['more']).more", "outer.inner.other.more"]
)
def test_who_asks_for_a_name_gets_the_real_package_around_the_same_module(package: Path, asked: str) -> None:
    source = OPEN.format(names=("outer.inner",)) + (
        f"import outer\nprint({asked})\nimport outer.inner as real\n"
        "print(real.leaf is leaf, real.value is leaf.value, real.__file__.endswith('__init__.py'))"
    )
    assert run(source, package).split("\n") == ["ran", "2", "True True True"]


def test_what_answers_instead_is_gone_afterwards(package: Path) -> None:
    source = (
        "import sys\nfrom foundation.deferred import deferring\n"
        "with deferring((), instead={'outer.inner': {'value': 5}}):\n"
        "    from outer.inner import value\n"
        "print(value, 'outer.inner' in sys.modules)\n"
        "from outer.inner import more\nprint(more)"
    )
    assert run(source, package).split("\n") == ["5 False", "ran", "2"]


def test_packages_that_are_there_or_nowhere_are_left_alone(package: Path) -> None:
    source = (
        "import sys, outer.inner\nfrom foundation.deferred import deferring\n"
        "with deferring(('outer.inner', 'outer.nowhere', 'no_such.thing'), instead={'outer.inner': {'more': 9}}):\n"
        "    from outer.inner import more\n"
        "print(more, outer.inner is sys.modules['outer.inner'], 'outer.nowhere' in sys.modules)"
    )
    assert run(source, package).split("\n") == ["ran", "2 True False"]


def test_networks_are_those_of_diffusers_itself() -> None:
    source = (
        "import foundation.networks as ours, diffusers\n"
        "import diffusers.models.unets.unet_2d, diffusers.models.autoencoders as packaged\n"
        "print(ours.UNet2DModel is diffusers.UNet2DModel is diffusers.models.unets.unet_2d.UNet2DModel,\n"
        "      packaged.AutoencoderKL is diffusers.AutoencoderKL, diffusers.UNet2DConditionModel.__name__)\n"
        "import torch._dynamo, scipy.stats\n"
        "print(torch._dynamo.allow_in_graph.__module__, scipy.stats.beta(2, 2).mean())"
    )
    assert run(source).split("\n") == ["True True UNet2DConditionModel", "torch._dynamo.decorators 0.5"]


@pytest.mark.parametrize("modules", ["gid.jobs, gid.diffusion.pipeline, gid.poking.modes"])
def test_commands_import_what_they_use(modules: str) -> None:
    source = f"import sys, {modules}\nprint(*(name for name in {HEAVY} if name in sys.modules))"
    assert run(source) == ""
