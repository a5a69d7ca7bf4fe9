"""Options of improve and history: what becomes of a model after its first training."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
from typing import ClassVar

from pydantic import Field

from gpt4image.config.base import StageConfig
from gpt4image.config.types import APath, ClassList, DataSpec, Fraction, MaybePath, Positional


class ImproveConfig(StageConfig):
    """Improve a model by new images: report what is new, ask about some of them, train again, and compare.

    Everything else is done as it was done for RUN. The same command goes on where it stopped.

    Example: gpt4image improve distilled new-photos --max-cost 2
    """

    essential: ClassVar[frozenset[str]] = frozenset({"out", "ask", "looks", "classes", "max_cost", "yes", "force"})

    run: Positional[APath]
    """Folder that `distill` or an earlier `improve` made."""
    new: Positional[DataSpec]
    """Folder of new images, with or without labels, or another dataset SPEC. Images that RUN knows are left out."""
    out: MaybePath = None
    """Folder of everything that is made. Default: that of RUN with the next number, such as distilled-2."""
    ask: int | None = Field(default=None, ge=1)
    """Number of new images to ask about and to learn from: unsure ones, unlike each other. Default: a quarter."""
    looks: int = Field(default=50, ge=0)
    """Number of new images, taken at random, that measure both models and are never learned from; at most a quarter.
    Labels in NEW are what counts; an image without one is asked about."""
    classes: ClassList = None
    """Classes from now on: a text file with one class per line, or a list with commas. Default: those of RUN."""
    describer: str | None = None
    """Describer SPEC, as for `distill`. Default: that of RUN."""
    margin: Fraction = 0.02
    """By how much accuracy on old or on new test images may fall; a model that loses more is not taken over."""
    force: bool = False
    """Take the new model over, whatever the comparison says."""
    max_cost: float | None = Field(default=None, gt=0.0)
    """Maximum cost in US dollars of all answers so far, those for RUN included."""
    yes: bool = False
    """Go on without a question, whatever the describer costs."""


class HistoryConfig(StageConfig):
    """Show how a model came to be: each model before it, its data, its cost and its accuracy.

    Example: gpt4image history distilled-3
    """

    run: Positional[APath]
    """Folder that `improve` or `distill` made."""
