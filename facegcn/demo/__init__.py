"""The procedural face of the demo world."""
