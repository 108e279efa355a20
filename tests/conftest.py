"""What all tests share: hypothesis profiles without deadlines, and a word on whether the large vectors run."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("fast", deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("big", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_report_header(config: pytest.Config) -> str:
    """Say whether the sets of vectors outside the tree are read."""
    folder = os.environ.get("FREEHOLD_VECTORS", "")
    if folder and Path(folder).is_dir():
        return f"vectors: the large sets of {folder} run too"
    return "vectors: FREEHOLD_VECTORS names no folder, so only the vectors written into the tests run"
