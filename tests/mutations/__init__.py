"""Every formula broken once, and the test that notices: ``python -m tests.mutations``, see docs/testing.md."""
