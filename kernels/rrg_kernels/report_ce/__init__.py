"""Cross-entropy of a language-model head on selected label rows."""

from rrg_kernels.report_ce.reference import report_cross_entropy

__all__ = ["report_cross_entropy"]
