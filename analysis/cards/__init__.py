"""One neuron, one clip, one labelling, as a page or a notebook shows them: from what the store keeps, at once."""
