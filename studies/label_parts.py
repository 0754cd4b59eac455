"""Faces, hands and poses in real pictures, found by mediapipe, as `rahf plant-faults --parts` takes them.

Runs in an environment of its own: mediapipe 0.10.14 (Apache-2.0) wants an older numpy than this project.
What it finds teaches where the parts of people are; nothing of mediapipe is part of the project.

usage: label_parts.py PICTURES OUT.jsonl     PICTURES: the folder of tables (.jsonl); goes on from what is in OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import cv2
import numpy as np

SIDE = 640  # pixels of the longer side that small pictures are enlarged to


def main() -> None:
    """Write one line a picture: file, faces and hands as x, y, width, height, and pose points, in parts of it."""
    import mediapipe  # not installed with this project

    folder, out = Path(sys.argv[1]), Path(sys.argv[2])
    done = {json.loads(line)["file"] for line in out.read_text().splitlines()} if out.exists() else set()
    rows = (json.loads(line) for table in sorted(folder.glob("*.jsonl")) for line in table.read_text().splitlines())
    files = [file for file in dict.fromkeys(row.get("file") for row in rows) if file and file not in done]
    solutions = mediapipe.solutions
    far = solutions.face_detection.FaceDetection(model_selection=1, min_detection_confidence=0.4)
    near = solutions.face_detection.FaceDetection(model_selection=0, min_detection_confidence=0.5)
    hands = solutions.hands.Hands(static_image_mode=True, max_num_hands=6, min_detection_confidence=0.3)
    pose = solutions.pose.Pose(static_image_mode=True, model_complexity=1, min_detection_confidence=0.5)
    with out.open("a") as lines:
        for file in files:
            picture = cv2.imread(str(folder / file))
            if picture is None:
                continue
            scale = max(1.0, SIDE / max(picture.shape[:2]))
            picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
            rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
            row = {
                "file": file,
                "faces": [box for finder in (far, near) for box in faces_of(finder.process(rgb))],
                "hands": [box_of(marks) for marks in hands.process(rgb).multi_hand_landmarks or ()],
                "pose": pose_of(pose.process(rgb)),
            }
            lines.write(json.dumps(row) + "\n")
            lines.flush()


def faces_of(found: object) -> list[list[float]]:
    """Boxes of faces."""
    boxes = [one.location_data.relative_bounding_box for one in getattr(found, "detections", None) or ()]
    return [[round(float(v), 4) for v in (box.xmin, box.ymin, box.width, box.height)] for box in boxes]


def box_of(marks: object) -> list[float]:
    """The box around the landmarks of a hand."""
    points = np.array([[point.x, point.y] for point in marks.landmark])  # type: ignore[attr-defined]
    low, high = points.min(0), points.max(0)
    return [round(float(v), 4) for v in (*low, *(high - low))]


def pose_of(found: object) -> list[list[float]]:
    """Points of a pose: x, y, visibility."""
    marks = getattr(found, "pose_landmarks", None)
    points = marks.landmark if marks else ()
    return [[round(float(v), 4) for v in (point.x, point.y, point.visibility)] for point in points]


if __name__ == "__main__":
    main()
