"""Make up messages on four topics: `python3 make_data.py FOLDER`."""

import json
import random
import sys
from pathlib import Path

TOPICS = {
    "food": "bread soup onion lemon pepper dinner oven recipe salt kitchen",
    "sport": "match goal team coach referee score race medal league training",
    "travel": "train ticket airport luggage map hotel border ferry passport journey",
    "weather": "rain cloud storm wind frost thunder sunshine fog temperature forecast",
}
COMMON = "the a we they today then again with for about after before said saw went had was is not very"
FILES = {"train/0.jsonl": 600, "train/1.jsonl": 600, "test/0.jsonl": 200}
"""Messages in each file."""

choice = random.Random(0)
root = Path(sys.argv[1])
for name, count in FILES.items():
    lines = []
    for _ in range(count):
        topic = choice.choice(list(TOPICS))
        words = [choice.choice((TOPICS[topic] if choice.random() < 0.3 else COMMON).split()) for _ in range(12)]
        lines.append(json.dumps({"text": " ".join(words), "topic": topic}))
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("\n".join(lines), encoding="utf-8")
(root / "topics.txt").write_text("\n".join(TOPICS), encoding="utf-8")
