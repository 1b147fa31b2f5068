"""An encoder: a network that maps a text to its vectors in one pass, trained through the frozen decoder's own loss.

`network` is what is trained, `train` trains it, `encoder` is a trained one with its folder, and
`starts` is where fits take their beginnings from.
"""
