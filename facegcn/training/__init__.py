"""The two training stages, their callbacks, and the encodings kept between them."""
