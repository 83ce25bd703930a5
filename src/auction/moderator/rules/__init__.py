"""What the moderator decides: plain functions over a draft, by subject.

They put records and move money on the draft, raise an `AuctionError`, and know nothing of journals, locks and networks.
What each command promises its caller is said in `commands`. A file imports only what stands before it here:

holds, admission, parties, blocks, chains, opinions, groups, announcing, awarding, bidding, at_once, ending,
failing_over, payments, banning, due
"""
