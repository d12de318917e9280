"""torchmetrics within what it was seen to take: contiguous operands."""

from dataclasses import replace

from targets import Domain
from tests.third_parties import torchmetrics_target

TARGET = replace(
    torchmetrics_target.TARGET,
    name="torchmetrics_contiguous",
    domain=Domain(layout="contiguous"),
)
