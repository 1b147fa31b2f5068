"""An encoder: a network that maps a text to its vectors in one pass.

It is trained with the frozen decoder's own loss (package `training`). `network` is the network,
`encoder` a trained one with its folder, and `starts` gives fits their initial vectors.
"""
