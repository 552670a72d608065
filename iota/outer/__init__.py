"""The outer step: pseudo-gradients in partitions, their merge to the bit, and Nesterov's update.

The merge and the update are numpy alone: elementwise IEEE operations are the same on every machine.
"""

from iota.outer.merge import Contribution, merge_weights, weighted_mean
from iota.outer.nesterov import OuterState, outer_step

__all__ = ["Contribution", "OuterState", "merge_weights", "outer_step", "weighted_mean"]
