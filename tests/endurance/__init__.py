"""Long checks: programs that are killed, stopped, starved of room and left to run."""
