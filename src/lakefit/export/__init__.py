"""`export`: a model of cleaned rows, with all that was learned inside it."""
