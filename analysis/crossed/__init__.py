"""Every sound with every text: effects of the two, neuron by neuron."""
