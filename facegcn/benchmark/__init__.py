"""How fast the costly parts are, each beside a plain reference."""
