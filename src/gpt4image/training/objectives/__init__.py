"""What a run learns besides its task: one module per objective, each a weighted term of the loss."""
