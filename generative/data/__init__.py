"""Where samples come from, in which order, and how to go on there after an interruption.

Text, once:
  config.py      settings of a text source (`TextDataConfig`, a union by `name`)
  documents.py   corpora, documents by number: built-in, local files; hub.py: data sets in the Hugging Face layout
  split.py       what is held out, and the pieces that text is tokenised in
  tokenizers.py  text <-> token ids: bytes, characters; huggingface.py: the tokenizers of that library
  pairs.py       prompts with responses; reversal.py: statements about people, and the tests that turn them round
  drifting.py    made text whose words change with time
  prepare.py     tokenises a corpus into a cache of shards; tokenise.py does one shard
Samples, again and again:
  text.py        `open_text`: from a configuration to `TextData` (text_data.py)
  manifest.py    what a folder of shards says about itself, and whether it is true
  shards.py      memory-mapped token files and fixed windows over them; packed.py reads TinyLlama's chunks
  stream.py      hub data read while it is trained on, with a cursor for each lane; held_out.py: its held-out windows
Images (and points in the plane), the same way:
  image_config.py   settings of an image source (`ImageDataConfig`, a union by `name`)
  images.py         `open_images`: from a configuration to `ImageData` (image_data.py)
  digits.py, points.py   scikit-learn's digits, alone and stacked; ring and grid; drawn.py draws rows by their numbers
  image_pool.py     encoded images by number: a folder of files; image_hub.py: data sets in the Hugging Face layout
  image_headers.py  looks at all headers first; image_decode.py: what is accepted, and how it becomes pixels
  image_prepare.py  decodes once into a cache; image_pack.py writes and reads its files, threads.py helps both
  image_facts.py    the shape of the samples before there are any
  image_files.py    8-bit rounding, PNG files, grids
Speech, clean and noisy:
  speech_config.py  settings of a source (`SpeechDataConfig`, a union by `name`), made of sections in speech_settings.py
  speech.py         `open_speech`: from a configuration to `SpeechData` (speech_data.py: crops, whole utterances)
  speech_made.py    speech-like signals without recordings; speech_draws.py: numbers of one sample
  speech_wave.py, speech_files.py   wav and flac files as one channel at one rate; speech_pictures.py: spectrograms
  speech_pairs.py   folders of pairs, VoiceBank-DEMAND, EARS-WHAM; speech_wsj0.py: what is made from WSJ0
  speech_folders.py speech and noise to mix; speech_split.py: what is held out; speech_rooms.py: reverberation
  speech_voices.py, speech_noises.py, speech_mix.py   who speaks, what disturbs, at which level
  speech_prepare.py reads the files once into a cache; speech_pack.py writes its tracks, speech_tracks.py reads them
What all build on:
  found.py       culprits, counted and named
  cache.py       makes a folder once, complete or not at all; lock.py keeps others waiting; files.py, packages.py
Order:
  order.py       the keyed permutation that shuffles an epoch in constant memory
  sources.py     what a loader asks of its data; partition.py cuts a global batch into ranks and micro-batches
  loader.py      `Loader`: this rank's shares of the global batches; exact and elastic resume
"""
