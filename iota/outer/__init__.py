"""The outer step: pseudo-gradients in partitions, their merge, and the Nesterov update.

Merge and update use only elementwise numpy operations, which IEEE 754 makes bitwise equal on every machine.
"""

from iota.outer.delta_codecs import open_delta_codec
from iota.outer.merge_rules import open_merge_rule
from iota.outer.nesterov import OuterState, outer_step

__all__ = ["OuterState", "open_delta_codec", "open_merge_rule", "outer_step"]
