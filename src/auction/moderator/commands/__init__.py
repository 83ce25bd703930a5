"""What may be asked of the moderator: one class for each subject, which derives from `Core` alone and knows no other.

A command names its rule in `rules` and lets `Core` run it. What reads, reads here."""
