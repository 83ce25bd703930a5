"""python -m streamcore"""

from streamcore.command.cli import main

main()
