"""Generation, answer likelihoods, stored predictions and the scores of one model."""
