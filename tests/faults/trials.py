"""Trials of commands in the warm process, each in a fresh home, all at one path: results hold paths."""

import shutil

from commands import COMMANDS, world


class Trials:
    """Trials of commands, each in a fresh home; the undisturbed result and the events of every command."""

    def __init__(self, root, nursery):
        self.root, self.home, self.nursery, self.known = root, root / "home", nursery, {}
        self.home.mkdir()
        world(self.home, lambda *words: self.nursery.run(words, self.home).code)
        shutil.rmtree(self.home / "cache", ignore_errors=True)
        self.home.rename(root / "template")

    def fresh(self):
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.copytree(self.root / "template", self.home)
        return self.home

    def plain(self, name):
        """What the command makes where nothing happens to it, and how many events that are."""
        if name not in self.known:
            child = self.nursery.run(COMMANDS[name].argv(), self.fresh())
            assert child.code == 0, child.said
            self.known[name] = COMMANDS[name].result(self.home), child.events
        return self.known[name]
