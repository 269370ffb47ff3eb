"""The only SQL. A function is a named statement; hot ones are SQL text with a line saying what they are for."""
