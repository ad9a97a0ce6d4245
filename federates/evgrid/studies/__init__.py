"""Studies: questions that take many runs, answered with confidence intervals."""
