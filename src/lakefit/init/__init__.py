"""`lakefit init`: a pipeline file guessed from a bounded sample, each guess with its evidence beside it."""
