"""Procedural swaying scenes with exact motion: plants, cloth, lanterns, flames over still backgrounds."""

from gid.data.scenes.recipes import RECIPES
from gid.data.scenes.scene import Scene, SceneConfig, generate_scene

__all__ = ["RECIPES", "Scene", "SceneConfig", "generate_scene"]
