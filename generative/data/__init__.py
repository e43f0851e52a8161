"""Where samples come from, in which order, and how to go on there after an interruption.

Text, once:
  config.py      settings of a text source (`TextDataConfig`, a union by `name`)
  documents.py   corpora, documents by number: built-in, local files; hub.py: data sets in the Hugging Face layout
  split.py       what is held out, and the pieces that text is tokenised in
  tokenizers.py  text <-> token ids: bytes, characters; huggingface.py: the tokenizers of that library
  prepare.py     tokenises a corpus into a cache of shards; tokenise.py does one shard, lock.py keeps others waiting
Samples, again and again:
  text.py        `open_text`: from a configuration to `TextData` (text_data.py)
  manifest.py    what a folder of shards says about itself, and whether it is true
  shards.py      memory-mapped token files and fixed windows over them; packed.py reads TinyLlama's chunks
  stream.py      hub data read while it is trained on, with a cursor for each lane; held_out.py: its held-out windows
Order:
  order.py       the keyed permutation that shuffles an epoch in constant memory
  sources.py     what a loader asks of its data; partition.py cuts a global batch into ranks and micro-batches
  loader.py      `Loader`: this rank's shares of the global batches; exact and elastic resume
"""
