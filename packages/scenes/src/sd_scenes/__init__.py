"""Captioned scenes drawn by code, and the model trained on them."""

from sd_scenes.captions import caption, plain_caption, vocabulary
from sd_scenes.composition import compose
from sd_scenes.dataset import Scenes, draw_scene, draw_subject, make_scene, write_folder
from sd_scenes.errors import SceneError
from sd_scenes.evaluation import EvalPrompt, eval_prompts
from sd_scenes.model import MODEL_NAME, model_folder
from sd_scenes.painter import paint_scene
from sd_scenes.places import PLACES
from sd_scenes.scene import Group, Item, Scene
from sd_scenes.thing import Thing
from sd_scenes.things import THINGS
from sd_scenes.views import make_view, subjects

__all__ = [
    "MODEL_NAME",
    "PLACES",
    "THINGS",
    "EvalPrompt",
    "Group",
    "Item",
    "Scene",
    "SceneError",
    "Scenes",
    "Thing",
    "caption",
    "compose",
    "draw_scene",
    "draw_subject",
    "eval_prompts",
    "make_scene",
    "make_view",
    "model_folder",
    "paint_scene",
    "plain_caption",
    "subjects",
    "vocabulary",
    "write_folder",
]
