"""From a photo file to an aligned, masked crop, and from crops to one packed file."""
