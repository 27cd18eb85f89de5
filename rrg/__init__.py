"""rrg: train radiology report generators."""
