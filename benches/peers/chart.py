"""The chart of the README: wall time and client CPU of lineitem, by format, as SVG that reads in light and dark.

    python3 benches/peers/chart.py benches/results/<date>-<machine>/results.json    draws speed.svg beside it
"""

import json
import os
import sys
from html import escape

# Format by format, ours first.
GROUPS = [
    ("Parquet", ["lineitem-parquet", "lineitem-duckdb-parquet", "lineitem-connectorx", "lineitem-adbc"]),
    ("CSV", ["lineitem-csv", "lineitem-psql-csv", "lineitem-duckdb-csv", "lineitem-pg-dump"]),
    ("NDJSON", ["lineitem-ndjson", "lineitem-duckdb-json"]),
]
MEASURES = [("wall_s", "wall time"), ("cpu_s", "client CPU")]

WIDTH, LEFT, RIGHT = 760, 250, 52
BAR, GAP, TITLE = 9, 9, 26

# Colours of the page where it has a preference, and of paper where it has none.
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.small { font-size: 11px; fill: #57606a }
.ours.wall_s { fill: #0969da } .ours.cpu_s { fill: #54aeff }
.peer.wall_s { fill: #8c959f } .peer.cpu_s { fill: #c4cbd2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 }
  .ours.wall_s { fill: #4493f8 } .ours.cpu_s { fill: #1f5aa8 }
  .peer.wall_s { fill: #848d97 } .peer.cpu_s { fill: #4b535d }
}
"""


def bars(found):
    """The groups that were measured: their title, and a name, whether it is ours, and the seconds of each tool."""
    tools = found["tools"]
    for title, names in GROUPS:
        there = [name for name in names if tools.get(name, {}).get("median")]
        if there:
            yield title, [
                (tools[name]["title"], name == names[0], [tools[name]["median"][what] for what, _ in MEASURES])
                for name in there
            ]


def chart(found):
    groups = list(bars(found))
    most = max(seconds for _, tools in groups for _, _, pair in tools for seconds in pair)
    scale = (WIDTH - LEFT - RIGHT) / most
    parts, y = [], 18
    rows = found["tables"]["lineitem"]["rows"]
    head = f"lineitem, {rows:,} rows, {found['about']['cores']} cores, seconds: less is better"
    parts.append(f'<text x="0" y="{y}">{escape(head)}</text>')
    for place, (what, name) in enumerate(MEASURES):
        x = WIDTH - 200 + 100 * place
        parts.append(f'<rect class="ours {what}" x="{x}" y="{y - 9}" width="10" height="10"/>')
        parts.append(f'<text class="small" x="{x + 15}" y="{y}">{name}</text>')
    for title, tools in groups:
        y += TITLE
        parts.append(f'<text x="0" y="{y}" font-weight="600">{escape(title)}</text>')
        for name, ours, pair in tools:
            parts.append(f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{escape(name.split(", zstd")[0])}</text>')
            for (what, _), seconds in zip(MEASURES, pair, strict=True):
                width = max(seconds * scale, 1)
                kind = "ours" if ours else "peer"
                parts.append(f'<rect class="{kind} {what}" x="{LEFT}" y="{y - 8}" width="{width:.1f}" height="{BAR}"/>')
                parts.append(f'<text class="small" x="{LEFT + width + 5:.1f}" y="{y}">{seconds:.2f}</text>')
                y += BAR + 1
            y += GAP
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img">'
    return f"{svg}\n<title>{escape(head)}</title>\n<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"


def draw(results):
    with open(results, encoding="utf-8") as file:
        found = json.load(file)
    if "lineitem" in found["tables"] and list(bars(found)):
        with open(os.path.join(os.path.dirname(results), "speed.svg"), "w", encoding="utf-8") as file:
            file.write(chart(found))


if __name__ == "__main__":
    draw(sys.argv[1])
