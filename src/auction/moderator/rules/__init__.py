"""The moderator's rules: plain functions over a draft, by subject.

They put records and move money on the draft, raise an `AuctionError`, and know nothing of journals, locks and networks.
`commands` documents each command for its caller. A file imports only those before it in this list:

holds, admission, parties, blocks, chains, opinions, groups, announcing, awarding, bidding, at_once, ending,
failing_over, payments, banning, erasing, due
"""
