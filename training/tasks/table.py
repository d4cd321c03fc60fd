"""The table of the stages of training, in the order in which they are trained."""

from __future__ import annotations

from collections.abc import Mapping

from ..occluder.task import OccluderTask
from .base import Task
from .coarse import CoarseTask, LayoutTask
from .parser import ParserTask
from .reconstruction import ReconstructionTask
from .refinement import MdrnetTask
from .samples import SamplesTask

TASKS: Mapping[str, type[Task]] = {
    task.name: task
    for task in (ParserTask, LayoutTask, CoarseTask, ReconstructionTask, SamplesTask, MdrnetTask, OccluderTask)
}
