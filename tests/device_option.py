"""Where tests that take a device run: pytest --device cuda."""

DEVICE = "cpu"
"""Set by conftest before any test is imported."""
