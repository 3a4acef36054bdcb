"""Which neurons are chosen: selectivity, rules, named sets, other selectors."""
