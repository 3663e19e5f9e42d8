"""What the verbs do: one recipe per verb, read from top to bottom; each calls the rooms below and prints."""
