"""What a validator decides: the draw and the scores. Pure."""
