"""What can be asked about an utterance, and how the answers are written. No torch."""

from wenet_osum.tasks.answer import Answer, Word
from wenet_osum.tasks.label_field import LabelField
from wenet_osum.tasks.table import TaskTable, load_tasks
from wenet_osum.tasks.task import Task

__all__ = ["Answer", "LabelField", "Task", "TaskTable", "Word", "load_tasks"]
