"""Cross-entropy of a language-model head on selected label rows."""

from rrg_kernels.report_ce.function import RowStatistics, report_cross_entropy, report_statistics

__all__ = ["RowStatistics", "report_cross_entropy", "report_statistics"]
