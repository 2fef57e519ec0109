"""The things that scenes are made of, one drawing function each."""
