"""The regression gate: are the numbers of a results folder still those of the frozen baseline?

`baseline` is the file that results are held against, `evidence` what a results folder holds, `decision` the statistics,
`check` the verdict on every (pair, method) in the words of `verdict`, `subset` the part of a baseline that fits into
some minutes. Everything here is a pure function of records and baseline; nothing imports torch or the training code.
"""
