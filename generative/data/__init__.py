"""Where samples come from, in which order, and how to go on there after an interruption.

config.py      typed settings of a text source (`TextDataConfig`, a union by `name`)
documents.py   corpora: documents by number (built-in, local files, a data set of the hub)
tokenizers.py  text <-> token ids: bytes, characters, Hugging Face
prepare.py     tokenises a corpus once, in parallel and resumably, into a cache of token shards
shards.py      memory-mapped token shards and fixed windows over them; packed.py reads TinyLlama's chunks
text.py        `open_text`: from a configuration to training and validation samples
order.py       the keyed permutation that shuffles an epoch in constant memory
sources.py     what a loader asks of its data; partition.py cuts a global batch into ranks and micro-batches
loader.py      `Loader`: the next global batch, cut into ranks and micro-batches; exact and elastic resume
stream.py      hub data read while it is trained on, with a cursor for each lane of shards
"""
