"""Every option of every stage: one frozen model per stage, each default written once with its meaning and unit.

The command line and the recipes are generated from these models; the docstring under a field is its help text.
A mistake raises ConfigError naming every wrong option at once, whether it comes from a shell, a recipe or Python.
"""

from gpt4image.config.base import StageConfig as StageConfig
from gpt4image.config.comparing import CompareConfig as CompareConfig
from gpt4image.config.comparing import DemoConfig as DemoConfig
from gpt4image.config.comparing import DoctorConfig as DoctorConfig
from gpt4image.config.comparing import ReportConfig as ReportConfig
from gpt4image.config.deploying import BenchmarkConfig as BenchmarkConfig
from gpt4image.config.deploying import ExportConfig as ExportConfig
from gpt4image.config.deploying import ExportLabelsConfig as ExportLabelsConfig
from gpt4image.config.deploying import PredictConfig as PredictConfig
from gpt4image.config.deploying import SearchConfig as SearchConfig
from gpt4image.config.describing import BOX_FORMATS as BOX_FORMATS
from gpt4image.config.describing import GUARD as GUARD
from gpt4image.config.describing import DescribeConfig as DescribeConfig
from gpt4image.config.describing import DescriberOptions as DescriberOptions
from gpt4image.config.describing import DescriptionsConfig as DescriptionsConfig
from gpt4image.config.describing import EncodeConfig as EncodeConfig
from gpt4image.config.describing import ExportDescriptionsConfig as ExportDescriptionsConfig
from gpt4image.config.describing import Flaw as Flaw
from gpt4image.config.describing import ImportDescriptionsConfig as ImportDescriptionsConfig
from gpt4image.config.describing import InspectConfig as InspectConfig
from gpt4image.config.describing import TrialConfig as TrialConfig
from gpt4image.config.distilling import DistillConfig as DistillConfig
from gpt4image.config.improving import HistoryConfig as HistoryConfig
from gpt4image.config.improving import ImproveConfig as ImproveConfig
from gpt4image.config.learning import DataOptions as DataOptions
from gpt4image.config.learning import EvaluateConfig as EvaluateConfig
from gpt4image.config.learning import LabelConfig as LabelConfig
from gpt4image.config.learning import TrainConfig as TrainConfig
from gpt4image.config.learning import TrainOptions as TrainOptions
from gpt4image.config.reviewing import AuditConfig as AuditConfig
from gpt4image.config.reviewing import DiscoverConfig as DiscoverConfig
from gpt4image.config.reviewing import ReviewConfig as ReviewConfig
