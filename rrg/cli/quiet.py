"""Other libraries' manners: chatter that says nothing to a user of this one, threads that spin while they wait."""

from __future__ import annotations

import os
import warnings


def quiet_libraries() -> None:
    """Set before those libraries are imported. Errors and warnings that matter still come through."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # loader processes are forked
    # CPU threads that wait for one another by spinning take the cores from whatever else runs on the machine, ten times over.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore", message=".*broadcast_buffers.*")  # Accelerate still passes torch's older name
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
