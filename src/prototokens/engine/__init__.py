"""The path from ids to vectors to ids: the part we write ourselves, and make fast."""
