"""Adds the identities of the policies in config/ to a SeaweedFS configuration, which judges by them as IAM does.

identities.py FILE BUCKET KEY SECRET    exporterKEY, cleanerKEY, and for each action of the exporter one that lacks it:
                                        without-PutObject-KEY. All are bound to the prefix `guarded`.
"""

import copy
import json
import sys
from pathlib import Path

CONFIG = Path(__file__).resolve().parents[2] / "config"


def policy(name, bucket):
    text = (CONFIG / name).read_text()
    return json.loads(text.replace("BUCKET", bucket).replace("PREFIX", "guarded"))


def main(file, bucket, key, secret):
    exporter = policy("s3-policy.json", bucket)
    policies = {"exporter": exporter, "cleaner": policy("s3-cleaner-policy.json", bucket)}
    for action in [action for statement in exporter["Statement"] for action in statement["Action"]]:
        less = copy.deepcopy(exporter)
        for statement in less["Statement"]:
            statement["Action"] = [other for other in statement["Action"] if other != action]
        policies[f"without-{action.removeprefix('s3:')}-"] = less
    config = json.loads(Path(file).read_text())
    config["policies"] = [{"name": name, "content": json.dumps(content)} for name, content in policies.items()]
    config["identities"] += [
        {"name": name, "credentials": [{"accessKey": name + key, "secretKey": secret}], "policyNames": [name]}
        for name in policies
    ]
    Path(file).write_text(json.dumps(config))


if __name__ == "__main__":
    main(*sys.argv[1:])
