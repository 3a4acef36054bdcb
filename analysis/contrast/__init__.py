"""The rule "contrast": is a neuron more active in a category's clips than in all others, by ranks of its means."""
