"""Studies: questions that take many runs, answered with how sure the answer is."""
