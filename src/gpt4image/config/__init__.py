"""Every option of every stage: one frozen model per stage, each default written once with its meaning and unit.

The command line and the recipes are generated from these models; the docstring under a field is its help text.
A mistake raises ConfigError naming every wrong option at once, whether it comes from a shell, a recipe or Python.
"""

from gpt4image.config.base import StageConfig
from gpt4image.config.comparing import CompareConfig, DemoConfig, DoctorConfig, ReportConfig
from gpt4image.config.deploying import ExportConfig, PredictConfig, SearchConfig
from gpt4image.config.describing import (
    BOX_FORMATS,
    GUARD,
    BackupConfig,
    CheckConfig,
    DescribeConfig,
    DescriberOptions,
    DescriptionsConfig,
    EncodeConfig,
    ExportDescriptionsConfig,
    Flaw,
    ImportDescriptionsConfig,
    StatsConfig,
    ViewConfig,
)
from gpt4image.config.distilling import DistillConfig
from gpt4image.config.learning import DataOptions, TrainOptions
from gpt4image.config.reviewing import ReviewConfig
from gpt4image.config.training import EvaluateConfig, LabelConfig, TrainConfig

__all__ = [
    "BOX_FORMATS",
    "Flaw",
    "GUARD",
    "BackupConfig",
    "CheckConfig",
    "CompareConfig",
    "DataOptions",
    "DemoConfig",
    "DescribeConfig",
    "DescriberOptions",
    "DescriptionsConfig",
    "DistillConfig",
    "DoctorConfig",
    "EncodeConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ExportDescriptionsConfig",
    "ImportDescriptionsConfig",
    "LabelConfig",
    "PredictConfig",
    "ReportConfig",
    "ReviewConfig",
    "SearchConfig",
    "StageConfig",
    "StatsConfig",
    "TrainConfig",
    "TrainOptions",
    "ViewConfig",
]
