"""Word statistics of a text."""

import collections
import json
import re


def handle(req):
    """Answer a request body with its word statistics, as JSON."""
    words = re.findall(r"\w+", req.lower())
    # Ties in alphabetical order: the same text always has the same answer.
    ranked = sorted(collections.Counter(words).items(), key=lambda item: (-item[1], item[0]))
    return json.dumps({
        "characters": len(req),
        "words": len(words),
        "distinct": len(ranked),
        "most_common": [{"word": word, "count": count} for word, count in ranked[:3]],
    })
