"""Looking into an encoder: activations, blocks, predictions of experts, mixtures."""
