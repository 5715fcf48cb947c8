"""The regression gate: are the numbers of a results folder still those of the frozen baseline?

`baseline` is the file that results are held against, `evidence` what a results folder holds, `decision` the statistics,
`joining` makes one of two baselines, `check` gives the verdict on every (pair, method) in the words of `verdict`.
Everything here is a pure function of records and baseline; nothing imports torch or the training code.
"""
