"""The second stream -> capture files, standard output, live interfaces. Imports nothing: seal.py must stay light."""
