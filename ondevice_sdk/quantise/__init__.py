"""Other formats for the weights of a model, and how far they stray from those that they were made of."""
