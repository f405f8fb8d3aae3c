"""Every formula of a table broken once, and who notices: ``python -m tests.mutations``, see docs/testing.md."""
