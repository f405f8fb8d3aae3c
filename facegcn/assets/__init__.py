"""Where face models and weights come from: converters, checks, and the three worlds."""
