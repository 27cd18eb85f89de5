"""Which study of a patient came before which."""

from __future__ import annotations

import dataclasses
from datetime import datetime

from rrg.data.study import Study

Moment = tuple[datetime, str]  # and the study of that moment


class PriorLinker:
    """Links each study to the patient's nearest strictly earlier one among those it has seen.

    Studies are given patient by patient, each patient's in the order of time; one without a time is neither linked nor a prior.
    """

    def __init__(self) -> None:
        self._patient = ""
        self._last: Moment | None = None
        self._before: Moment | None = None  # the last study of an earlier moment: studies of one moment share their prior

    def link(self, study: Study, acquired: datetime | None) -> Study:
        """`study` with `prior` and the gap `prior_days`, where there is one."""
        if study.patient != self._patient:
            self._patient, self._last, self._before = study.patient, None, None
        if acquired is None:
            return study
        if self._last is not None and self._last[0] < acquired:
            self._before = self._last
        self._last = (acquired, study.id)
        if self._before is None:
            return study
        days = round((acquired - self._before[0]).total_seconds() / 86400, 4)
        return dataclasses.replace(study, prior=self._before[1], prior_days=days)
