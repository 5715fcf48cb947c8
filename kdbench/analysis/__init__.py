"""What the records say: statistics of accuracy gains and of cost, as pure functions of a results folder.

`frames.load` reads the records, `gains` and `cost` turn them into typed rows, `stats` holds every formula.
Nothing here imports torch, timm or the training code.
"""
