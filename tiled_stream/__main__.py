"""`python -m tiled_stream` is the command `tiled-stream`."""

from tiled_stream.run.cli import main

if __name__ == "__main__":
    main()
