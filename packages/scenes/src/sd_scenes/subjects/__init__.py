"""The particular dog and cat that no training set shows, one file each."""

from sd_scenes.subject import Subject
from sd_scenes.subjects.momo import MOMO
from sd_scenes.subjects.rex import REX

SUBJECTS: dict[str, Subject] = {subject.name: subject for subject in (REX, MOMO)}

__all__ = ["SUBJECTS"]
