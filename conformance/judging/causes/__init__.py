"""The likely cause of a failure: hypotheses, tested on the target, and silence where none is left.

Each hypothesis predicts what the target returns if it is true. It is confirmed only where its
prediction holds on the failing case and on others, chosen to tell hypotheses apart, and the right
answer does not. Where hypotheses that mean different things survive, no cause is given.
"""
