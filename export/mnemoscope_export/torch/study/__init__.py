"""Looking into a model: gradients, Jacobians, attention."""
