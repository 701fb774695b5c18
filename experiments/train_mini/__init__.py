"""`mini` from nothing: its model, scenes painted beforehand, the training and the folder that it ends in."""
