"""The regressor, frozen TF1 graphs, and the normalisations of the critic."""
