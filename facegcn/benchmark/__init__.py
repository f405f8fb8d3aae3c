"""How fast the costly parts are, each beside a plain reference; how good results are where the truth is known."""
