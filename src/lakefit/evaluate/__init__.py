"""`evaluate`: the trained model on validation and test, beside the baselines."""
