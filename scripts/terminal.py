"""The picture of the terminal in the README: an export as a person sees it in tmux, under way and finished, as SVG.

    python3 scripts/terminal.py --binary target/release/outhaul --from URL --table lineitem --out config/terminal.svg

The relation has to take some seconds, as TPC-H lineitem of `scripts/tpch load 1 URL` does.
"""

import argparse
import os
import re
import subprocess
import tempfile
import time
from html import escape

COLUMNS, ROWS = 100, 16
CHARACTER, LINE, MARGIN = 7.85, 18, 16
# The colours of the first 16 numbers, on a ground that is dark in a light page and in a dark one.
GROUND, PLAIN, DIM = "#161b22", "#e6edf3", "#9198a1"
COLOURS = ["#6e7681", "#ff7b72", "#7ee787", "#e3b341", "#79c0ff", "#d2a8ff", "#a5d6ff", "#e6edf3"]


def spans(line):
    """The pieces of a captured line: text, colour, and whether it is bold."""
    colour, bold = PLAIN, False
    for piece in re.split(r"(\x1b\[[0-9;]*m)", line):
        if not piece.startswith("\x1b["):
            if piece:
                yield piece, colour, bold
            continue
        for number in (int(part or 0) for part in piece[2:-1].split(";")):
            if number in (0, 39):
                colour = PLAIN
            if number in (0, 22):
                bold = False
            if number == 1:
                bold = True
            elif number == 2:
                colour = DIM
            elif 30 <= number <= 37 or 90 <= number <= 97:
                colour = COLOURS[number % 10]


def draw(lines):
    width, height = round(COLUMNS * CHARACTER + 2 * MARGIN), len(lines) * LINE + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f'<rect width="{width}" height="{height}" rx="8" fill="{GROUND}"/>',
        '<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, monospace" font-size="13" xml:space="preserve">',
    ]
    for number, line in enumerate(lines):
        y, column = MARGIN + LINE * number + 13, 0
        for text, colour, bold in spans(line):
            weight = ' font-weight="bold"' if bold else ""
            x = MARGIN + column * CHARACTER
            column += len(text)
            if text.strip():
                # The length keeps columns where they are, whatever font is there.
                parts.append(
                    f'<text x="{x:.1f}" y="{y}" fill="{colour}"{weight} textLength="{len(text) * CHARACTER:.1f}" '
                    f'lengthAdjust="spacingAndGlyphs">{escape(text)}</text>'
                )
    return "\n".join([*parts, "</g>", "</svg>", ""])


class Terminal:
    """A tmux of its own."""

    def __init__(self, folder, environment):
        self.tmux = ["tmux", "-L", f"outhaul-picture-{os.getpid()}"]
        size = ["-x", str(COLUMNS), "-y", str(ROWS)]
        shell = ["env", "PS1=$ ", "bash", "--norc", "--noprofile"]
        subprocess.run([*self.tmux, "-f", "/dev/null", "new-session", "-d", *size, *shell], cwd=folder, env=environment, check=True)

    def type(self, text):
        subprocess.run([*self.tmux, "send-keys", text, "Enter"], check=True)

    def screen(self):
        seen = subprocess.run([*self.tmux, "capture-pane", "-e", "-p"], capture_output=True, text=True, check=True).stdout
        return seen.rstrip("\n").split("\n")

    def wait(self, words, seconds=120):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            screen = self.screen()
            if re.search(words, re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(screen))):
                return screen
            time.sleep(0.05)
        raise SystemExit(f"{words} was not seen within {seconds} seconds:\n" + "\n".join(self.screen()))

    def end(self):
        subprocess.run([*self.tmux, "kill-server"], check=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("--binary", "--from", "--table", "--out"):
        parser.add_argument(name, required=True, dest=name.strip("-") + "_")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="outhaul-picture.") as folder:
        os.mkdir(f"{folder}/bin")
        os.symlink(os.path.abspath(args.binary_), f"{folder}/bin/outhaul")
        path = f"{folder}/bin:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "DATABASE_URL": args.from_, "TERM": "screen-256color", "LC_ALL": "C.UTF-8"}
        environment.pop("NO_COLOR", None)
        terminal = Terminal(folder, environment)
        try:
            terminal.wait(r"\$")
            terminal.type(f"outhaul export {args.table_} --to ./{args.table_}")
            under_way = terminal.wait(r" (5|6|7)[0-9] ?%")
            done = terminal.wait(r"check it .*\n\$ *$")
        finally:
            terminal.end()
    # The folder's own name says nothing to a reader.
    tidy = lambda lines: [line.replace(folder, "/data") for line in lines]
    done = [line for line in tidy(done) if line.strip() not in ("", "$")]
    after = done[next(at for at, line in enumerate(done) if "complete" in line) :]
    with open(args.out_, "w", encoding="utf-8") as out:
        out.write(draw([*tidy(under_way), "", *after]))


main()
