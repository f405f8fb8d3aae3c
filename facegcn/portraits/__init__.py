"""Made portraits: pictures of a morphable model with known truth."""
