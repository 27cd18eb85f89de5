"""A synthetic chest-film data set in the folder and table layout of MIMIC-CXR-JPG, whose truth is known.

It lets every command run, and learning be verified, without credentialed data. Findings are drawn plainly, far plainer than in
real films: a score on phantom films says that training works, and nothing about radiology.
"""

from rrg.data.prepare.phantom.cohort import CohortSummary, write_cohort
from rrg.data.prepare.phantom.truth import StudyTruth, read_truth, truth_labels

__all__ = ["CohortSummary", "StudyTruth", "read_truth", "truth_labels", "write_cohort"]
