"""Self-improvement that is measured: STaR on tasks with exact answers, SPIN with its own loss.

>>> from phi_train.improve import check, tasks
>>> task = next(tasks(seed=1, events=(2,), side="train"))
>>> check(task.story, task.question, task.completion).right
True
"""

from phi_train.improve.checker import Verdict, check, solve
from phi_train.improve.task import Task, side_of, tasks

__all__ = ["Task", "Verdict", "check", "side_of", "solve", "tasks"]
