"""The synthetic scenes: images of emoji on named backgrounds, their captions, and their full ground truth."""

from ttd.scenes.nouns import BACKGROUNDS, CATEGORIES, NOUNS, STYLES
from ttd.scenes.scene import Scene, Scenes

__all__ = ["BACKGROUNDS", "CATEGORIES", "NOUNS", "STYLES", "Scene", "Scenes"]
